//! Proof that a caller may do something with what the path names.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::auth::{self, Caller};
use super::names;
use crate::app::App;
use crate::auth::scopes::Scope;
use crate::doors::connection::Guest;
use crate::doors::extract::parameter;
use crate::doors::rate::Rate;
use crate::doors::requests::ClientId;
use crate::error::Error;

/// Proof that the caller may do `S` with the queue or topic of the path, and does not too much of it.
#[derive(Debug)]
pub(super) struct Allowed<S> {
    /// Its name.
    pub(super) name: String,
    /// Who he is.
    pub(super) caller: Caller,
    scope: PhantomData<S>,
}

impl<S: Scope> FromRequestParts<App> for Allowed<S> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refused> {
        let caller = known(parts, app).await?;
        let name = parameter(parts, app, "name").await;
        caller.allow::<S>(&name)?;
        let suffix = &app.settings.broker.dlq_suffix;
        names::check(&name, suffix)?;
        Ok(Self {
            name,
            caller,
            scope: PhantomData,
        })
    }
}

/// The caller, if there was no request too many of his.
async fn known(parts: &Parts, app: &App) -> Result<Caller, Refused> {
    let rate = parts.extensions.get::<Arc<Rate>>().cloned();
    let peer = parts.extensions.get::<Guest>().and_then(Guest::peer);
    let address = || peer.map_or_else(String::new, |peer| peer.to_string());
    let identified = match shown(parts, app) {
        Ok(shown) => auth::identify(app, shown).await,
        Err(error) => Err(error),
    };
    // those who are nobody count by where they come from: keys cannot be guessed without end
    let who = identified
        .as_ref()
        .ok()
        .and_then(|caller| caller.who.clone());
    if let Some(rate) = rate {
        rate.check(&who.unwrap_or_else(address))
            .map_err(Refused::TooMany)?;
    }
    let caller = identified?;
    if let (Some(known), Some(id)) = (parts.extensions.get::<ClientId>(), caller.client_id) {
        known.set(id);
    }
    Ok(caller)
}

fn shown<'a>(parts: &'a Parts, app: &App) -> Result<Option<&'a str>, Error> {
    if auth::is_open(app) {
        return Ok(None);
    }
    auth::shown(parts)
}

/// Why somebody may not.
#[derive(Debug)]
pub(super) enum Refused {
    /// He is nobody, or may do something else.
    Error(Error),
    /// He has to wait for so long.
    TooMany(Duration),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let wait = match self {
            Self::Error(error) => return error.into_response(),
            Self::TooMany(wait) => wait,
        };
        let error = Error::TooMany("too many requests (FASTPUBSUB_BROKER_RATE_LIMIT)");
        let mut response = error.into_response();
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        response
    }
}
