//! The caller of a route, checked: a handler with a [`Caller`] parameter is never entered by a
//! client that lacks the scope. A handler without one is public.

use std::marker::PhantomData;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::scopes;
use super::tokens::Identity;
use crate::app::App;
use crate::error::Error;
use crate::telemetry::requests::ClientId;

/// The scope that a route needs.
pub trait Scope: Send + Sync {
    /// What is acted on, such as `topics`.
    const RESOURCE: &'static str;
    /// What is done, such as `publish`.
    const ACTION: &'static str;
}

macro_rules! scopes {
    ($($name:ident = $resource:literal : $action:literal),+ $(,)?) => {$(
        #[doc = concat!("Scope `", $resource, ":", $action, "`.")]
        #[derive(Debug)]
        pub enum $name {}
        impl Scope for $name {
            const RESOURCE: &'static str = $resource;
            const ACTION: &'static str = $action;
        }
    )+};
}

scopes! {
    TopicsCreate = "topics":"create",
    TopicsRead = "topics":"read",
    TopicsUpdate = "topics":"update",
    TopicsDelete = "topics":"delete",
    TopicsPublish = "topics":"publish",
    SubscriptionsCreate = "subscriptions":"create",
    SubscriptionsRead = "subscriptions":"read",
    SubscriptionsUpdate = "subscriptions":"update",
    SubscriptionsDelete = "subscriptions":"delete",
    SubscriptionsConsume = "subscriptions":"consume",
    ClientsCreate = "clients":"create",
    ClientsUpdate = "clients":"update",
    ClientsRead = "clients":"read",
    ClientsDelete = "clients":"delete",
}

/// Proof that the caller has the scope `S`, on the object that the path's `{id}` names.
#[derive(Debug)]
pub struct Caller<S>(PhantomData<S>);

impl<S: Scope> FromRequestParts<App> for Caller<S> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        if let Some(scopes) = granted(parts, app).await? {
            let params = RawPathParams::from_request_parts(parts, app).await.ok();
            let object = params
                .iter()
                .flat_map(|params| params.iter())
                .find_map(|(name, value)| (name == "id").then_some(value));
            if !scopes::allow(&scopes, S::RESOURCE, S::ACTION, object) {
                return Err(Error::Forbidden);
            }
        }
        Ok(Self(PhantomData))
    }
}

/// Proof that the caller has the scope `S` on some object; the body names which, and
/// [`BodyCaller::allow`] must be asked for each.
#[derive(Debug)]
pub struct BodyCaller<S> {
    grants: Grants,
    scope: PhantomData<S>,
}

impl<S: Scope> BodyCaller<S> {
    /// Check one object that the body names.
    ///
    /// # Errors
    /// 403 when the caller lacks the scope on it.
    pub fn allow(&self, object: &str) -> Result<(), Error> {
        self.grants.allow::<S>(object)
    }
}

impl<S: Scope> FromRequestParts<App> for BodyCaller<S> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let scopes = granted(parts, app).await?;
        let allowed = scopes
            .as_deref()
            .is_none_or(|scopes| scopes::allow_some(scopes, S::RESOURCE, S::ACTION));
        if !allowed {
            return Err(Error::Forbidden);
        }
        Ok(Self {
            grants: Grants(scopes),
            scope: PhantomData,
        })
    }
}

/// What the caller may do beside what the route asks for, on objects that the body names.
#[derive(Debug)]
pub struct Grants(
    /// None when anything goes.
    Option<String>,
);

impl Grants {
    /// Check the scope `S` on an object.
    ///
    /// # Errors
    /// 403 when the caller lacks it.
    pub fn allow<S: Scope>(&self, object: &str) -> Result<(), Error> {
        match &self.0 {
            Some(scopes) if !scopes::allow(scopes, S::RESOURCE, S::ACTION, Some(object)) => {
                Err(Error::Forbidden)
            }
            _ => Ok(()),
        }
    }
}

impl FromRequestParts<App> for Grants {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        granted(parts, app).await.map(Self)
    }
}

/// The token that a request came with; none where authentication is off.
#[derive(Debug)]
pub struct Presented(Option<String>);

impl Presented {
    /// Check that it is still good.
    ///
    /// # Errors
    /// 401 when it is not, 503 when that cannot be found out.
    pub async fn check(&self, app: &App) -> Result<(), Error> {
        if let (Some(token), Some(tokens)) = (&self.0, &app.tokens) {
            tokens.verify(&app.pool, token).await?;
        }
        Ok(())
    }
}

impl FromRequestParts<App> for Presented {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let token = app.settings.auth_enabled.then(|| bearer_token(parts));
        Ok(Self(token.flatten()))
    }
}

/// The scopes of the caller; none when authentication is off.
async fn granted(parts: &mut Parts, app: &App) -> Result<Option<String>, Error> {
    let Some(tokens) = app.tokens.as_ref().filter(|_| app.settings.auth_enabled) else {
        return Ok(None);
    };
    let token = bearer_token(parts).ok_or(Error::Unauthorized("Invalid jwt token"))?;
    let Identity { client_id, scopes } = tokens.verify(&app.pool, &token).await?;
    if let Some(known) = parts.extensions.get::<ClientId>() {
        known.set(client_id);
    }
    Ok(Some(scopes))
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750, section 2.1).
fn bearer_token(parts: &Parts) -> Option<String> {
    let header = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}
