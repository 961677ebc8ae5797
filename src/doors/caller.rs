//! The caller of a route, checked: a handler with a [`Caller`] or [`CallerOnSome`] parameter is never
//! entered by a client that lacks the scope. A handler without one is public. What each route of a
//! door asks for stands in its table of routes.

use std::borrow::Cow;
use std::marker::PhantomData;

use axum::extract::{FromRequestParts, MatchedPath, RawPathParams};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::extract::query_pairs;
use super::requests::ClientId;
use crate::app::App;
use crate::auth::api_keys;
use crate::auth::scopes::{self, Scope};
use crate::auth::tokens::Identity;
use crate::error::Error;

/// Longest token that is looked at; ours are shorter than a quarter of it.
const TOKEN_MAX_LENGTH: usize = 16 * 1024;
/// Where an API key may stand instead of a token.
const API_KEY: &str = "x-api-key";
/// Where a token may stand in the query (RFC 6750, section 2.3), because browsers can set no header there:
/// `EventSource` and `WebSocket` have no argument for it.
const IN_QUERY: [&str; 2] = ["/subscriptions/{id}/stream", "/subscriptions/{id}/ws"];
const ACCESS_TOKEN: &str = "access_token";

/// What is wrong with a request apart from its body: told once the caller is known to have the scope,
/// and before anything is done.
#[derive(Clone, Debug)]
pub struct AfterScope(pub Error);

impl AfterScope {
    fn check(parts: &Parts) -> Result<(), Error> {
        match parts.extensions.get::<Self>() {
            Some(Self(error)) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

/// Proof that the caller has the scope `S`, on the object that the path's `{id}` names.
#[derive(Debug)]
pub struct Caller<S>(PhantomData<S>);

impl<S: Scope> FromRequestParts<App> for Caller<S> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let grants = Grants::from_request_parts(parts, app).await?;
        let params = RawPathParams::from_request_parts(parts, app).await.ok();
        let object = params
            .iter()
            .flat_map(|params| params.iter())
            .find_map(|(name, value)| (name == "id").then_some(value));
        if !grants.has::<S>(object) {
            return Err(lacks::<S>());
        }
        AfterScope::check(parts)?;
        Ok(Self(PhantomData))
    }
}

/// Proof that the caller has the scope `S` on some object. Which one is told by the body, or by the
/// database: [`CallerOnSome::allow`] must be asked for each, or [`CallerOnSome::objects`] handed to
/// the SQL function.
#[derive(Debug)]
pub struct CallerOnSome<S> {
    grants: Grants,
    scope: PhantomData<S>,
}

impl<S: Scope> CallerOnSome<S> {
    /// Check one object that the body names.
    ///
    /// # Errors
    /// 403 when the caller lacks the scope on it.
    pub fn allow(&self, object: &str) -> Result<(), Error> {
        self.grants.allow::<S>(object)
    }

    /// Whether the caller has the scope without an object.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.grants.has::<S>(None)
    }

    /// The ids, and beginnings of ids that end in `*`, that the caller has the scope on; none for all.
    #[must_use]
    pub fn objects(&self) -> Option<Vec<String>> {
        self.grants.objects::<S>()
    }
}

impl<S: Scope> FromRequestParts<App> for CallerOnSome<S> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let grants = Grants::from_request_parts(parts, app).await?;
        let allowed = grants
            .0
            .as_deref()
            .is_none_or(|scopes| scopes::allow_some(scopes, S::RESOURCE, S::ACTION));
        if !allowed {
            return Err(lacks::<S>());
        }
        AfterScope::check(parts)?;
        Ok(Self {
            grants,
            scope: PhantomData,
        })
    }
}

/// What the caller may do beside what the route asks for.
#[derive(Clone, Debug)]
pub struct Grants(
    /// None when anything goes: authentication is off.
    Option<String>,
);

impl Grants {
    /// Whether the caller has the scope `S`, on an object if there is one.
    #[must_use]
    pub fn has<S: Scope>(&self, object: Option<&str>) -> bool {
        self.0
            .as_deref()
            .is_none_or(|scopes| scopes::allow(scopes, S::RESOURCE, S::ACTION, object))
    }

    /// Check the scope `S` on an object.
    ///
    /// # Errors
    /// 403 when the caller lacks it.
    pub fn allow<S: Scope>(&self, object: &str) -> Result<(), Error> {
        if self.has::<S>(Some(object)) {
            Ok(())
        } else {
            Err(lacks::<S>())
        }
    }

    /// The ids, and beginnings of ids that end in `*`, that the caller has the scope `S` on; none for
    /// all.
    #[must_use]
    pub fn objects<S: Scope>(&self) -> Option<Vec<String>> {
        let scopes = self.0.as_deref()?;
        scopes::objects(scopes, S::RESOURCE, S::ACTION)
    }

    /// The first of some scopes that the caller does not have itself.
    #[must_use]
    pub fn beyond<'a>(&self, wanted: &'a str) -> Option<&'a str> {
        scopes::beyond(self.0.as_deref()?, wanted)
    }
}

impl FromRequestParts<App> for Grants {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        if !app.settings.auth_enabled {
            return Ok(Self(None));
        }
        // a handler may ask more than once
        if let Some(known) = parts.extensions.get::<Self>() {
            return Ok(known.clone());
        }
        let Identity { client_id, scopes } = Credential::of(parts)?.identify(app).await?;
        if let Some(known) = parts.extensions.get::<ClientId>() {
            known.set(client_id);
        }
        let grants = Self(Some(scopes));
        parts.extensions.insert(grants.clone());
        Ok(grants)
    }
}

/// What a request shows of who sends it.
enum Credential<T> {
    Token(T),
    ApiKey(T),
}

impl<'a> Credential<Cow<'a, str>> {
    /// One that a proxy looked at must not be another than ours: who shows two is nobody.
    fn of(parts: &'a Parts) -> Result<Self, Error> {
        let has_header = [AUTHORIZATION.as_str(), API_KEY]
            .iter()
            .any(|name| parts.headers.contains_key(*name));
        match token_in_query(parts) {
            None => Self::in_headers(parts),
            Some(_) if has_header => Err(Error::InvalidToken(
                "There must be one of Authorization, X-API-Key and access_token",
            )),
            // a key does not end, and must not stand where others log it
            Some(token) if api_keys::is_meant_as_key(&token) => {
                Err(Error::InvalidToken("access_token must not be an API key"))
            }
            Some(token) if token.len() > TOKEN_MAX_LENGTH => {
                Err(Error::InvalidToken("Invalid jwt token"))
            }
            Some(token) => Ok(Self::Token(token.into())),
        }
    }

    fn in_headers(parts: &'a Parts) -> Result<Self, Error> {
        let mut keys = parts.headers.get_all(API_KEY).iter();
        let Some(key) = keys.next() else {
            let token = bearer_token(parts)?;
            return Ok(if api_keys::is_meant_as_key(token) {
                Self::ApiKey(token.into())
            } else {
                Self::Token(token.into())
            });
        };
        if keys.next().is_some() || parts.headers.contains_key(AUTHORIZATION) {
            return Err(Error::InvalidToken(
                "There must be one of Authorization and X-API-Key",
            ));
        }
        // what is no text is no key
        Ok(Self::ApiKey(key.to_str().unwrap_or_default().trim().into()))
    }

    fn into_owned(self) -> Credential<String> {
        match self {
            Self::Token(token) => Credential::Token(token.into_owned()),
            Self::ApiKey(key) => Credential::ApiKey(key.into_owned()),
        }
    }
}

impl<T: AsRef<str>> Credential<T> {
    async fn identify(&self, app: &App) -> Result<Identity, Error> {
        match (self, &app.tokens) {
            (Self::ApiKey(key), _) => app.identify_api_key(key.as_ref()).await,
            (Self::Token(token), Some(tokens)) => {
                tokens.verify(&app.database, token.as_ref()).await
            }
            (Self::Token(_), None) => Err(Error::InvalidToken("Invalid jwt token")),
        }
    }
}

/// The token or API key that a request came with; none where authentication is off.
pub struct Presented(Option<Credential<String>>);

impl Presented {
    /// Check that it still has the scope `S` on an object.
    ///
    /// # Errors
    /// 401 when it is good no more, 403 when it has no more, 503 when that cannot be found out.
    pub async fn check<S: Scope>(&self, app: &App, object: &str) -> Result<(), Error> {
        match &self.0 {
            Some(credential) => {
                let Identity { scopes, .. } = credential.identify(app).await?;
                Grants(Some(scopes)).allow::<S>(object)
            }
            None => Ok(()),
        }
    }
}

impl FromRequestParts<App> for Presented {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let shown = Credential::of(parts).ok();
        let shown = shown.filter(|_| app.settings.auth_enabled);
        Ok(Self(shown.map(Credential::into_owned)))
    }
}

fn lacks<S: Scope>() -> Error {
    Error::Forbidden {
        message: "Insufficient scope".to_owned(),
        needed: Some((S::RESOURCE, S::ACTION)),
    }
}

fn token_in_query(parts: &Parts) -> Option<String> {
    let query = parts.uri.query()?;
    let path = parts.extensions.get::<MatchedPath>()?;
    if !query.contains(ACCESS_TOKEN) || !IN_QUERY.contains(&path.as_str()) {
        return None;
    }
    let pairs = query_pairs(&parts.uri).ok()?;
    let mut tokens = pairs.into_iter().filter(|(name, _)| name == ACCESS_TOKEN);
    let (_, token) = tokens.next()?;
    // of two, neither
    Some(tokens.next().map_or(token, |_| String::new()))
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750, section 2.1).
fn bearer_token(parts: &Parts) -> Result<&str, Error> {
    let invalid = Error::InvalidToken("Invalid jwt token");
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let header = headers
        .next()
        .ok_or(Error::Unauthorized("Invalid jwt token"))?;
    // one that a proxy looked at must not be another than ours
    if headers.next().is_some() {
        return Err(invalid);
    }
    let credentials = header.to_str().ok().and_then(|text| text.split_once(' '));
    match credentials {
        Some((scheme, token))
            if scheme.eq_ignore_ascii_case("bearer") && token.len() <= TOKEN_MAX_LENGTH =>
        {
            Ok(token.trim())
        }
        _ => Err(invalid),
    }
}
