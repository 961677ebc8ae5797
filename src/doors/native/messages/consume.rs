//! `/subscriptions/{id}`: consume, acks, nacks.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::app::App;
use crate::auth::scopes::SubscriptionsConsume;
use crate::db::Timestamp;
use crate::db::json::JsonText;
use crate::db::messages::{Claim, Delivery};
use crate::doors::answers;
use crate::doors::body;
use crate::doors::caller::Caller;
use crate::doors::extract::{JsonBody, PathId, QueryValues};
use crate::doors::fields::{Fields, TEXT_MAX_LENGTH};
use crate::doors::native::messages::handles::handles;
use crate::doors::native::openapi::{CommonErrors, NotFound, TooLarge};
use crate::doors::receipts::receipt;
use crate::error::Error;

/// A message, as one subscription receives it.
#[derive(Serialize, ToSchema)]
pub struct Message {
    /// Its id, a UUIDv7 that increases in publish order.
    id: Uuid,
    /// The subscription.
    subscription_id: String,
    /// What was published.
    #[schema(value_type = Object)]
    payload: JsonText,
    /// How often it was delivered, this delivery included.
    delivery_attempts: i32,
    /// When it was published.
    created_at: Timestamp,
    /// Names this very delivery for acks and nacks: once the message is delivered again, it fits
    /// nothing. Absent for dead letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    receipt: Option<String>,
}

/// Messages of a subscription.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the schema only; messages are answered one by one"
)]
pub struct MessageList {
    /// In publish order.
    data: Vec<Message>,
}

/// How to consume.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub struct ConsumeParams {
    /// Who consumes, for people who look for a stuck message; at most 1024 characters.
    #[param(example = "worker-1")]
    consumer_id: String,
    /// Most messages to return.
    #[param(minimum = 1, maximum = 100, default = 10)]
    batch_size: Option<i32>,
}

/// Lease ready messages to a consumer until their ack deadline
///
/// What is left out because the answer would have too many bytes (FASTPUBSUB_API_MAX_ANSWER_BYTES) is not
/// leased.
#[utoipa::path(get, path = "/subscriptions/{id}/messages", tag = "original",
    params(("id" = String, Path), ConsumeParams),
    responses((status = 200, body = MessageList), NotFound, CommonErrors))]
pub async fn consume_messages(
    _: Caller<SubscriptionsConsume>,
    State(app): State<App>,
    PathId(id): PathId,
    QueryValues(query): QueryValues,
) -> Result<([(HeaderName, HeaderValue); 1], Response), Error> {
    let mut fields = Fields::of_query(&query);
    let consumer_id = fields.text("consumer_id", 0, TEXT_MAX_LENGTH);
    let batch_size = fields.int("batch_size", 10, 1, 100);
    fields.finish()?;
    let claim = Claim {
        consumer_id,
        batch_size,
        ack_deadline_seconds: None,
        only: None,
        auto_ack: false,
    };
    let claimed = app.engine.consume(id.clone(), claim).await?;
    let room = (claimed.bytes, claimed.share);
    let list = answers::list(r#"{"data":["#, claimed.deliveries, room, move |delivery| {
        message(&id, delivery)
    })?;
    // a GET that leases must not be answered from a cache
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([no_store], list))
}

/// Ack messages: settle them for good
///
/// Takes message ids or receipts. What is unknown, not leased or of a stale receipt is ignored.
#[utoipa::path(post, path = "/subscriptions/{id}/acks", tag = "original",
    params(("id" = String, Path)), request_body(content = Vec<String>,
        example = json!(["01997ca3-5c2e-7d49-8a6b-0f5f7f1c2d3e"])),
    responses((status = 204), NotFound, TooLarge, CommonErrors))]
pub async fn ack_messages(
    _: Caller<SubscriptionsConsume>,
    State(app): State<App>,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ body::LIST }>,
) -> Result<StatusCode, Error> {
    app.engine.ack(id, handles(&body)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Nack messages: retry them after their backoff, or dead-letter them when their attempts are spent
///
/// Takes message ids or receipts. What is unknown, not leased or of a stale receipt is ignored.
#[utoipa::path(post, path = "/subscriptions/{id}/nacks", tag = "original",
    params(("id" = String, Path)), request_body(content = Vec<String>,
        example = json!(["01997ca3-5c2e-7d49-8a6b-0f5f7f1c2d3e"])),
    responses((status = 204), NotFound, TooLarge, CommonErrors))]
pub async fn nack_messages(
    _: Caller<SubscriptionsConsume>,
    State(app): State<App>,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ body::LIST }>,
) -> Result<StatusCode, Error> {
    app.engine.nack(&id, &handles(&body)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn message(subscription_id: &str, delivery: Delivery) -> Message {
    Message {
        id: delivery.message_id,
        subscription_id: subscription_id.to_owned(),
        payload: delivery.payload,
        delivery_attempts: delivery.attempts,
        created_at: delivery.published_at,
        receipt: delivery
            .lease
            .map(|lease| receipt(delivery.message_id, lease)),
    }
}
