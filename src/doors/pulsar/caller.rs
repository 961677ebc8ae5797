//! What callers show, and what it lets them do.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Extension;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use super::Door;
use super::protocol::TOKEN_MAX_LENGTH;
use crate::app::App;
use crate::auth::api_keys;
use crate::auth::foreign::{self, Claims};
use crate::auth::scopes::{self, Scope};
use crate::auth::tokens::Identity;
use crate::config::Secret;
use crate::doors::connection::Guest;
use crate::doors::rate::Denied;
use crate::doors::requests::ClientId;
use crate::error::Error;

const MISSING: Error = Error::Unauthorized("a token is needed");
const WRONG: Error = Error::InvalidToken("the token is wrong, or not valid any more");
const LIMIT: &str = "x-ratelimit-limit";
const REMAINING: &str = "x-ratelimit-remaining";

/// Somebody who may call.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// What he may do; none for everything.
    scopes: Option<String>,
    /// With which topics; none for all.
    topics: Option<Vec<String>>,
    /// What tells him from others; none for his address.
    who: Option<String>,
    /// The native client, if he is one.
    client_id: Option<Uuid>,
    /// The token or API key, where there is any.
    shown: Option<Secret>,
}

impl Caller {
    /// Whether he may do something with a topic.
    fn may<S: Scope>(&self, topic: &str) -> bool {
        let in_topics = |topics: &Vec<String>| topics.iter().any(|known| known == topic);
        self.topics.as_ref().is_none_or(in_topics)
            && self
                .scopes
                .as_deref()
                .is_none_or(|granted| scopes::allow(granted, S::RESOURCE, S::ACTION, Some(topic)))
    }

    /// Check that he may do something with any topic at all.
    ///
    /// # Errors
    /// 403 when he may not.
    pub(super) fn allow_some<S: Scope>(&self) -> Result<(), Error> {
        let allowed = |granted: &str| scopes::allow_some(granted, S::RESOURCE, S::ACTION);
        if self.scopes.as_deref().is_none_or(allowed) {
            return Ok(());
        }
        Err(lacks::<S>("any topic"))
    }

    /// Check that he may do something with topics.
    ///
    /// # Errors
    /// 403 when he may not.
    pub(super) fn allow<'t, S: Scope>(
        &self,
        topics: impl IntoIterator<Item = &'t str>,
    ) -> Result<(), Error> {
        let mut topics = topics.into_iter();
        match topics.find(|topic| !self.may::<S>(topic)) {
            Some(topic) => Err(lacks::<S>(&format!("{topic:?}"))),
            None => Ok(()),
        }
    }

    /// Who he is by now, by what he showed.
    ///
    /// # Errors
    /// 401 when it is good no more, 503 when that cannot be found out.
    pub(super) async fn again(&self, app: &App) -> Result<Self, Error> {
        identify(app, self.shown.as_ref().map(Secret::reveal)).await
    }

    /// Count messages of his.
    ///
    /// # Errors
    /// When they are too many.
    pub(super) fn count(&self, door: &Door, guest: &Guest, messages: usize) -> Result<(), TooMany> {
        count(door, self.who.clone(), guest, messages)
    }
}

/// Count messages of somebody, or of an address.
pub(super) fn count(
    door: &Door,
    who: Option<String>,
    guest: &Guest,
    messages: usize,
) -> Result<(), TooMany> {
    let Some(rate) = &door.rate else {
        return Ok(());
    };
    let many = u32::try_from(messages).ok().and_then(NonZeroU32::new);
    let address = || {
        guest
            .peer()
            .map_or_else(String::new, |peer| peer.to_string())
    };
    let who = who.unwrap_or_else(address);
    rate.check_many(&who, many.unwrap_or(NonZeroU32::MIN))
        .map_err(|denied| TooMany {
            denied,
            limit: rate.limit(),
        })
}

fn lacks<S: Scope>(what: &str) -> Error {
    Error::Forbidden {
        message: format!(
            "the scope {}:{} is needed for {what}",
            S::RESOURCE,
            S::ACTION
        ),
        needed: Some((S::RESOURCE, S::ACTION)),
    }
}

/// Whether nobody has to show anything; what is shown all the same is not looked at.
pub(super) fn is_open(app: &App) -> bool {
    app.settings.pulsar.is_open(app.settings.auth_enabled)
}

/// Who shows something.
///
/// # Errors
/// 401 when nobody does, 503 when that cannot be found out.
pub(super) async fn identify(app: &App, shown: Option<&str>) -> Result<Caller, Error> {
    if is_open(app) {
        return Ok(Caller {
            scopes: None,
            topics: None,
            who: None,
            client_id: None,
            shown: None,
        });
    }
    let shown = shown.filter(|shown| !shown.is_empty()).ok_or(MISSING)?;
    if shown.len() > TOKEN_MAX_LENGTH {
        return Err(WRONG);
    }
    if api_keys::is_meant_as_key(shown) {
        let identity = app.identify_api_key(shown).await?;
        return Ok(client(identity, shown));
    }
    let secret = app.settings.pulsar.jwt_secret_key.as_ref();
    if let Some(claims) = secret.and_then(|secret| foreign::verify(secret, shown)) {
        let Claims {
            subject,
            scopes,
            topics,
        } = claims;
        return Ok(Caller {
            scopes,
            topics,
            who: subject.map(|subject| format!("subject {subject}")),
            client_id: None,
            shown: Some(shown.to_owned().into()),
        });
    }
    let tokens = app.tokens.as_ref().ok_or(WRONG)?;
    let identity = tokens.verify(&app.database, shown).await?;
    Ok(client(identity, shown))
}

fn client(identity: Identity, shown: &str) -> Caller {
    Caller {
        scopes: Some(identity.scopes),
        topics: None,
        who: Some(format!("client {}", identity.client_id)),
        client_id: Some(identity.client_id),
        shown: Some(shown.to_owned().into()),
    }
}

/// The token of the header, if there is one.
///
/// # Errors
/// 401 when the header is another, or there are several.
pub(super) fn shown(parts: &Parts) -> Result<Option<&str>, Error> {
    let mut headers = parts.headers.get_all(header::AUTHORIZATION).iter();
    let Some(header) = headers.next() else {
        return Ok(None);
    };
    // a proxy that looked at one of them must not have seen another than we
    if headers.next().is_some() {
        return Err(WRONG);
    }
    let text = header.to_str().map_err(|_| WRONG)?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(WRONG),
    }
}

/// A caller of a route, and where he comes from.
pub(super) struct Called {
    pub(super) door: Arc<Door>,
    pub(super) caller: Caller,
    pub(super) guest: Guest,
}

impl FromRequestParts<App> for Called {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refused> {
        let Ok(Extension(guest)) = Extension::<Guest>::from_request_parts(parts, app).await else {
            return Err(Error::refused(503, "the server ends").into());
        };
        let door = Door::of(app);
        let shown = if is_open(app) { Ok(None) } else { shown(parts) };
        let identified = match shown {
            Ok(shown) => identify(app, shown).await,
            Err(error) => Err(error),
        };
        let caller = match identified {
            Ok(caller) => caller,
            Err(error) => {
                // tokens cannot be guessed without end
                count(&door, None, &guest, 1)?;
                return Err(error.into());
            }
        };
        if let (Some(known), Some(id)) = (parts.extensions.get::<ClientId>(), caller.client_id) {
            known.set(id);
        }
        Ok(Self {
            door,
            caller,
            guest,
        })
    }
}

/// Somebody sends too much.
#[derive(Clone, Copy, Debug)]
pub(super) struct TooMany {
    pub(super) denied: Denied,
    pub(super) limit: u32,
}

/// Why somebody may not.
#[derive(Debug)]
pub(super) enum Refused {
    /// He is nobody, or may do something else, or what he sends is wrong.
    Error(Error),
    /// He has to wait.
    TooMany(TooMany),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<TooMany> for Refused {
    fn from(too_many: TooMany) -> Self {
        Self::TooMany(too_many)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let TooMany { denied, limit } = match self {
            Self::Error(error) => return error.into_response(),
            Self::TooMany(too_many) => too_many,
        };
        let error = Error::TooMany("too many messages (FASTPUBSUB_PULSAR_RATE_LIMIT_PER_CLIENT)");
        let mut response = error.into_response();
        let seconds = denied.wait.as_secs() + u64::from(denied.wait.subsec_nanos() > 0);
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        headers.insert(HeaderName::from_static(LIMIT), HeaderValue::from(limit));
        headers.insert(
            HeaderName::from_static(REMAINING),
            HeaderValue::from(denied.remaining),
        );
        response
    }
}
