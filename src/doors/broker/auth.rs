//! What callers show, and what it lets them do.

use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::app::App;
use crate::auth::foreign::{self, Claims};
use crate::auth::scopes::Scope;
use crate::auth::tokens::Identity;
use crate::auth::{api_keys, scopes};
use crate::config::Secret;
use crate::config::broker::AuthMode;
use crate::error::Error;

const RESOURCE: &str = "broker";
const API_KEY: &str = "x-api-key";
/// Longest key or token that is looked at.
const MAX_LENGTH: usize = 16 * 1024;
const MISSING: Error = Error::Unauthorized("an API key or a token is needed");
const WRONG: Error = Error::Unauthorized("the API key or token is wrong, or not valid any more");

/// Somebody who may call.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// What he may do; none for everything.
    scopes: Option<String>,
    /// What tells him from others; none where many may have the same key, or none.
    pub(super) who: Option<String>,
    /// The native client, if he is one.
    pub(super) client_id: Option<Uuid>,
    /// The key or token, where there is any.
    shown: Option<Secret>,
}

impl Caller {
    fn unlimited(shown: Option<&str>) -> Self {
        Self {
            scopes: None,
            who: None,
            client_id: None,
            shown: shown.map(|shown| shown.to_owned().into()),
        }
    }

    fn client(identity: Identity, shown: &str) -> Self {
        Self {
            scopes: Some(identity.scopes),
            who: Some(format!("client {}", identity.client_id)),
            client_id: Some(identity.client_id),
            shown: Some(shown.to_owned().into()),
        }
    }

    /// Whether he may do something with the queue or topic of a name.
    pub(super) fn may(&self, action: &str, name: &str) -> bool {
        self.scopes
            .as_deref()
            .is_none_or(|scopes| scopes::allow(scopes, RESOURCE, action, Some(name)))
    }

    /// Check that he may.
    ///
    /// # Errors
    /// 403 when he may not.
    pub(super) fn allow<S: Scope>(&self, name: &str) -> Result<(), Error> {
        if self.may(S::ACTION, name) {
            return Ok(());
        }
        Err(Error::Forbidden {
            message: format!("the scope broker:{} is needed for {name:?}", S::ACTION),
            needed: Some((S::RESOURCE, S::ACTION)),
        })
    }

    /// Check that he still may, by what he showed.
    ///
    /// # Errors
    /// 401 when it is good no more, 403 when he may no more, 503 when that cannot be found out.
    pub(super) async fn check<S: Scope>(&self, app: &App, name: &str) -> Result<(), Error> {
        let shown = self.shown.as_ref().map(Secret::reveal);
        identify(app, shown).await?.allow::<S>(name)
    }
}

/// What a request shows: `Authorization: Bearer`, or a key alone in a header of its own.
///
/// # Errors
/// 401 when it shows something else, or several things.
pub(super) fn shown(parts: &Parts) -> Result<Option<&str>, Error> {
    let mut shown = None;
    for name in [AUTHORIZATION.as_str(), API_KEY] {
        for value in parts.headers.get_all(name) {
            let text = value.to_str().map_err(|_| WRONG)?;
            let credential = if name == API_KEY {
                text
            } else {
                let (scheme, credential) = text.split_once(' ').ok_or(WRONG)?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(WRONG);
                }
                credential
            };
            // a proxy that looked at one of them must not have seen another than we
            if credential.len() > MAX_LENGTH
                || shown.is_some_and(|other| other != credential.trim())
            {
                return Err(WRONG);
            }
            shown = Some(credential.trim());
        }
    }
    Ok(shown)
}

/// Whether nobody has to show anything; what is shown all the same is not looked at.
pub(super) fn is_open(app: &App) -> bool {
    app.settings.broker.is_open(app.settings.auth_enabled)
}

/// Who shows something.
///
/// # Errors
/// 401 when nobody does, 503 when that cannot be found out.
pub(super) async fn identify(app: &App, shown: Option<&str>) -> Result<Caller, Error> {
    if is_open(app) {
        return Ok(Caller::unlimited(None));
    }
    let shown = shown.ok_or(MISSING)?;
    let settings = &app.settings.broker;
    match (settings.mode(), &settings.jwt_secret) {
        (Some(AuthMode::ApiKey), _) => match &settings.api_key {
            Some(key) if is_same(key, shown) => Ok(Caller::unlimited(Some(shown))),
            _ => by_api_key(app, shown).await,
        },
        (Some(AuthMode::Bearer), Some(secret)) => by_token_of(secret, shown),
        (None, _) if api_keys::is_meant_as_key(shown) => by_api_key(app, shown).await,
        _ => by_token(app, shown).await,
    }
}

/// Digests are compared: that tells nothing of the key in its time.
fn is_same(key: &Secret, shown: &str) -> bool {
    Sha256::digest(key.reveal()) == Sha256::digest(shown)
}

async fn by_api_key(app: &App, shown: &str) -> Result<Caller, Error> {
    let identity = app.identify_api_key(shown).await?;
    Ok(Caller::client(identity, shown))
}

async fn by_token(app: &App, shown: &str) -> Result<Caller, Error> {
    let tokens = app.tokens.as_ref().ok_or(WRONG)?;
    let identity = tokens.verify(&app.database, shown).await?;
    Ok(Caller::client(identity, shown))
}

/// Tokens that somebody else issues, who has the same secret.
fn by_token_of(secret: &Secret, shown: &str) -> Result<Caller, Error> {
    let Claims {
        scopes, subject, ..
    } = foreign::verify(secret, shown).ok_or(WRONG)?;
    Ok(Caller {
        scopes,
        who: subject.map(|who| format!("subject {who}")),
        client_id: None,
        shown: Some(shown.to_owned().into()),
    })
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    fn token(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    #[test]
    fn a_token_is_of_the_secret_the_algorithm_and_its_time() {
        let secret = Secret::from("shared".to_owned());
        let now = chrono::Utc::now().timestamp();
        let good = json!({"exp": now + 60, "sub": "me", "aud": "others"});
        let read = |token: &str| by_token_of(&secret, token);

        let caller = read(&token(Algorithm::HS256, "shared", &good)).unwrap();
        assert_eq!(caller.who.as_deref(), Some("subject me"));
        assert!(caller.may("manage", "q"));
        for (algorithm, secret, claims) in [
            (Algorithm::HS256, "other", good.clone()),
            (Algorithm::HS512, "shared", good.clone()),
            (Algorithm::HS256, "shared", json!({"sub": "me"})),
            (Algorithm::HS256, "shared", json!({"exp": now - 1})),
            (Algorithm::HS256, "shared", json!({"exp": "soon"})),
            (
                Algorithm::HS256,
                "shared",
                json!({"exp": now + 60, "nbf": now + 30}),
            ),
        ] {
            assert!(
                read(&token(algorithm, secret, &claims)).is_err(),
                "{algorithm:?} {claims}"
            );
        }
        assert!(read("").is_err() && read("eyJhbGciOiJub25lIn0.e30.").is_err());
    }

    #[test]
    fn a_claim_of_scopes_limits_a_token_and_none_does_not() {
        let secret = Secret::from("shared".to_owned());
        let exp = chrono::Utc::now().timestamp() + 60;
        for (scope, publishes, consumes) in [
            (json!("broker:publish broker:consume:q"), true, true),
            (json!("broker:consume:other broker:publish:q*"), true, false),
            (json!(["broker:consume"]), false, true),
            (json!("*"), true, true),
            (json!(""), false, false),
            (json!(null), false, false),
            (json!({"broker": true}), false, false),
            (json!("broker:publishes topics:publish"), false, false),
        ] {
            let token = token(
                Algorithm::HS256,
                "shared",
                &json!({"exp": exp, "scope": scope}),
            );
            let caller = by_token_of(&secret, &token).unwrap();
            let may = (caller.may("publish", "q"), caller.may("consume", "q"));
            assert_eq!(may, (publishes, consumes), "{scope}");
        }
    }
}
