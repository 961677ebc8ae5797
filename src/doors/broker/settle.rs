//! Acks and nacks.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::Allowed;
use super::openapi::{Errors, NotFound, TooLarge};
use super::tags::Tagged;
use super::view;
use crate::app::App;
use crate::auth::scopes::BrokerConsume;
use crate::db::settlements::{Action, Settlement};
use crate::doors::extract::JsonBody;
use crate::doors::fields::{Fields, TEXT_MAX_LENGTH};
use crate::error::{Error, found};
use crate::telemetry::doors::count;

/// Longest tag that is looked at, in characters: the longest name is of 232, each of four bytes.
pub(super) const TAG_MAX_LENGTH: usize = 4096;

/// What to ack.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"delivery_tag": "dtag-rAZ..."}))]
pub(super) struct AckRequest {
    /// The delivery.
    delivery_tag: String,
}

/// What to nack.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"delivery_tag": "dtag-rAZ...", "requeue": false, "reason": "timeout"}))]
pub(super) struct NackRequest {
    /// The delivery.
    delivery_tag: String,
    /// Whether it is back at once; else it comes back after the backoff. Both spend a delivery.
    #[schema(default = true)]
    requeue: Option<bool>,
    /// Why, for whoever looks at the failures of a message.
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// What became of a delivery.
#[derive(Serialize, ToSchema)]
pub(super) struct Settled {
    /// `acked`; `requeued`, `retry`, or `dead_lettered` where it was the last one.
    pub(super) status: &'static str,
}

/// Ack a message of a queue: it is done
#[utoipa::path(post, path = "/queues/{name}/ack", tag = "queues",
    params(("name" = String, Path)), request_body = AckRequest,
    responses((status = 200, body = Settled), NotFound, TooLarge, Errors))]
pub(super) async fn ack_of_queue(
    allowed: Allowed<BrokerConsume>,
    app: State<App>,
    body: JsonBody,
) -> Result<Json<Settled>, Error> {
    ack(allowed, app, body).await
}

/// Ack a message of a topic: it is done, for the subscription that it was pulled from
#[utoipa::path(post, path = "/topics/{name}/ack", tag = "topics",
    params(("name" = String, Path)), request_body = AckRequest,
    responses((status = 200, body = Settled), NotFound, TooLarge, Errors))]
pub(super) async fn ack_of_topic(
    allowed: Allowed<BrokerConsume>,
    app: State<App>,
    body: JsonBody,
) -> Result<Json<Settled>, Error> {
    ack(allowed, app, body).await
}

/// Nack a message of a queue: it comes back, or is dead-lettered if this was its last delivery
#[utoipa::path(post, path = "/queues/{name}/nack", tag = "queues",
    params(("name" = String, Path)), request_body = NackRequest,
    responses((status = 200, body = Settled), NotFound, TooLarge, Errors))]
pub(super) async fn nack_of_queue(
    allowed: Allowed<BrokerConsume>,
    app: State<App>,
    body: JsonBody,
) -> Result<Json<Settled>, Error> {
    nack(allowed, app, body).await
}

/// Nack a message of a topic: it comes back, or is dead-lettered if this was its last delivery
#[utoipa::path(post, path = "/topics/{name}/nack", tag = "topics",
    params(("name" = String, Path)), request_body = NackRequest,
    responses((status = 200, body = Settled), NotFound, TooLarge, Errors))]
pub(super) async fn nack_of_topic(
    allowed: Allowed<BrokerConsume>,
    app: State<App>,
    body: JsonBody,
) -> Result<Json<Settled>, Error> {
    nack(allowed, app, body).await
}

async fn ack(
    Allowed { name, .. }: Allowed<BrokerConsume>,
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Json<Settled>, Error> {
    let mut fields = Fields::of_body(&body)?;
    let tag = fields.text("delivery_tag", 0, TAG_MAX_LENGTH);
    fields.finish()?;
    settle(&app, &name, &tag, Action::Ack).await.map(Json)
}

async fn nack(
    Allowed { name, .. }: Allowed<BrokerConsume>,
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Json<Settled>, Error> {
    let mut fields = Fields::of_body(&body)?;
    let tag = fields.text("delivery_tag", 0, TAG_MAX_LENGTH);
    let nack = nack_of(&mut fields);
    fields.finish()?;
    settle(&app, &name, &tag, nack).await.map(Json)
}

/// What the fields of a nack say beside the tag.
pub(super) fn nack_of(fields: &mut Fields<'_>) -> Action {
    let requeue = match fields.optional("requeue") {
        Some(_) => fields.boolean("requeue").unwrap_or(true),
        None => true,
    };
    Action::Nack {
        seconds: requeue.then_some(0.0),
        reason: fields
            .optional("reason")
            .map(|_| fields.text("reason", 0, TEXT_MAX_LENGTH)),
    }
}

/// Settle the delivery of a tag, if it is one of the queue or topic of this name.
pub(super) async fn settle(
    app: &App,
    name: &str,
    tag: &str,
    action: Action,
) -> Result<Settled, Error> {
    let missing = || {
        let text = "delivery_tag is unknown, was used, or was delivered again";
        Error::refused(404, text)
    };
    let tagged = Tagged::parse(tag).filter(|tagged| tagged.is_of(name));
    let tagged = tagged.ok_or_else(missing)?;
    let label = view::label(tagged.kind(), name);
    let at_once = matches!(
        action,
        Action::Nack {
            seconds: Some(_),
            ..
        }
    );
    let settlement = Settlement {
        message_id: tagged.message_id,
        lease: tagged.lease,
        action,
    };
    let settle = app.engine.settle(tagged.subscription_id, vec![settlement]);
    // it may have been deleted meanwhile
    let settled = found(settle.await)?.ok_or_else(missing)?;
    let (counter, status) = match settled.first().map(|settled| settled.status.as_str()) {
        Some("acked") => ("broker_messages_acked_total", "acked"),
        Some("nacked") if at_once => ("broker_messages_nacked_total", "requeued"),
        Some("nacked") => ("broker_messages_nacked_total", "retry"),
        Some("dead_lettered") => ("broker_messages_nacked_total", "dead_lettered"),
        _ => return Err(missing()),
    };
    count(counter, &label, 1);
    tracing::debug!(delivery.tag = tag, "{status}");
    Ok(Settled { status })
}
