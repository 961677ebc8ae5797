//! `/subscriptions/{id}/push/test`: does the endpoint answer?

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::Utc;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::scopes::SubscriptionsUpdate;
use crate::db;
use crate::db::Timestamp;
use crate::db::json::JsonText;
use crate::db::messages::Delivery;
use crate::db::push::PushEndpoint;
use crate::doors::caller::Caller;
use crate::doors::extract::PathId;
use crate::doors::native::openapi::{CommonErrors, NotFound};
use crate::doors::shown;
use crate::error::Error;

/// What is sent, and the attribute by which a receiver can tell it from what was published.
const PAYLOAD: &str = r#"{"test": true}"#;
const ATTRIBUTES: &str = r#"{"push-test": "true"}"#;

/// How an endpoint took a message.
#[derive(Serialize, ToSchema)]
pub struct PushTest {
    /// What it answered; null if nothing.
    #[schema(required = true, example = 204)]
    status: Option<u16>,
    /// How long that took.
    #[schema(example = 12)]
    duration_ms: u64,
    /// Why it does not count as taken; absent of one that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
}

/// Send a test message to the endpoint of a subscription
///
/// At once and signed, also while the endpoint is paused. No message of the subscription is touched. When the
/// endpoint takes it, a pause is over.
#[utoipa::path(post, path = "/subscriptions/{id}/push/test", tag = "subscriptions",
    params(("id" = String, Path)),
    responses((status = 200, body = PushTest), NotFound, CommonErrors))]
pub async fn test_push(
    _: Caller<SubscriptionsUpdate>,
    State(app): State<App>,
    PathId(id): PathId,
) -> Result<Json<PushTest>, Error> {
    let endpoints = db::push::list(&app.database, Some(&id)).await?;
    let Some(endpoint) = endpoints.into_iter().next() else {
        db::subscriptions::get(&app.database, &id).await?;
        return Err(Error::refused(404, "The subscription has no push endpoint"));
    };
    let message = message()?;
    let message_id = message.message_id.to_string();
    let tried = app
        .push
        .try_out(&endpoint, &message_id, shown(&endpoint, &message))
        .await;
    if tried.error.is_none() && is_in_pause(&app, &id, &endpoint).await? {
        // to set it again ends whatever pause there is
        match app.engine.update_subscription(&id, r#"{"push": {}}"#).await {
            // taken away, or deleted, just now
            Err(error) if matches!(error.status(), 404 | 422) => {}
            set => {
                set?;
                app.push.changed();
            }
        }
    }
    Ok(Json(PushTest {
        status: tried.status,
        duration_ms: u64::try_from(tried.took.as_millis()).unwrap_or(u64::MAX),
        error: tried.error,
    }))
}

/// Whether an endpoint is still the one that it was, and has failed.
async fn is_in_pause(app: &App, id: &str, endpoint: &PushEndpoint) -> Result<bool, Error> {
    let now = db::push::list(&app.database, Some(id)).await?;
    Ok(now.first().is_some_and(|now| {
        now.version == endpoint.version && (now.failures > 0 || now.pause.is_some())
    }))
}

fn message() -> Result<Delivery, Error> {
    let written = |text: &str| {
        let written = JsonText::written(text.to_owned());
        written.map_err(|fault| {
            let fault = Box::<dyn std::error::Error + Send + Sync>::from(fault);
            Error::Internal(Arc::from(fault))
        })
    };
    Ok(Delivery {
        message_id: Uuid::now_v7(),
        payload: written(PAYLOAD)?,
        attempts: 1,
        published_at: Timestamp(Utc::now()),
        lease: None,
        subscription_id: None,
        attributes: Some(written(ATTRIBUTES)?),
        ordering_key: None,
        priority: None,
        ack_deadline: None,
    })
}
