//! `/subscriptions/{id}/pull`: lease messages, waiting for them where there are none.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::scopes::SubscriptionsConsume;
use crate::db::Timestamp;
use crate::db::json::JsonText;
use crate::db::messages::{Claim, Delivery, Only};
use crate::doors::answers;
use crate::doors::body;
use crate::doors::caller::{Caller, Presented};
use crate::doors::extract::{JsonBody, PathId};
use crate::doors::fields::{Fields, TEXT_MAX_LENGTH};
use crate::doors::native::attributes::Attributes;
use crate::doors::native::messages::settle::{self, SettleRequest, SettleResult};
use crate::doors::native::openapi::{CommonErrors, NotFound, TooLarge};
use crate::doors::receipts::receipt;
use crate::error::{Error, Rule};

/// How to pull.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"consumer_id": "worker-1", "max_messages": 10, "wait_seconds": 5}))]
pub struct PullRequest {
    /// Who consumes, for people who look for a stuck message.
    #[schema(min_length = 1, max_length = 1024)]
    consumer_id: String,
    /// Most messages to return.
    #[schema(nullable = false, minimum = 1, maximum = 1000, default = 10)]
    max_messages: Option<i32>,
    /// How long to wait for a message where there is none, in seconds.
    #[schema(nullable = false, minimum = 0, maximum = 30, default = 0)]
    wait_seconds: Option<i32>,
    /// For how long to lease the messages, in seconds; by default as the subscription says.
    #[schema(minimum = 1, maximum = 43200)]
    ack_deadline_seconds: Option<i32>,
    /// Ack the messages in the commit that hands them out: at most once, and gone if the answer is lost.
    #[schema(nullable = false, default = false)]
    auto_ack: Option<bool>,
    /// `new`: only what was never delivered; `unseen`: nor to this consumer.
    #[schema(pattern = "^(new|unseen)$")]
    only: Option<String>,
    /// What to settle first, as `/settle` takes it: a consumer that works through a backlog needs one
    /// request a batch.
    settle: Option<SettleRequest>,
}

/// A delivery of a message.
#[derive(Serialize, ToSchema)]
pub struct PulledMessage {
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
    /// Names this very delivery: once the message is delivered again, it fits nothing. It stays the
    /// same when the lease is extended. Absent of what is acked already.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    receipt: Option<String>,
    /// Its attributes, each a string.
    #[schema(value_type = HashMap<String, String>)]
    attributes: Attributes,
    /// Its ordering key, if it has one.
    #[schema(required = true)]
    ordering_key: Option<String>,
    /// Its priority, 0 to 9.
    priority: i16,
    /// When the lease ends, unless it is extended. Absent of what is acked already.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ack_deadline: Option<Timestamp>,
}

/// What was pulled.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the schema only; messages are answered one by one"
)]
pub struct PullResponse {
    /// What became of the deliveries that were to be settled, as `/settle` tells it; absent where there was
    /// no `settle`.
    #[schema(nullable = false)]
    results: Option<Vec<SettleResult>>,
    /// In publish order; empty when there was nothing within the wait. Fewer than asked for when more
    /// would be too many bytes.
    messages: Vec<PulledMessage>,
}

/// Pull messages: lease them until their ack deadline, waiting for the first one
///
/// The answer comes as soon as there is a message. A client that goes away meanwhile loses nothing; one
/// whose token is revoked meanwhile gets 401. What is left out because the answer would have too many
/// bytes (FASTPUBSUB_API_MAX_ANSWER_BYTES) is not leased.
///
/// What `settle` asks for is done first, in a commit of its own, and before any wait. Whoever got no answer
/// may send the same again: `lease_lost` then says that it was done.
#[utoipa::path(post, path = "/subscriptions/{id}/pull", tag = "messages",
    params(("id" = String, Path)), request_body = PullRequest,
    responses((status = 200, body = PullResponse), NotFound, TooLarge, CommonErrors))]
pub async fn pull_messages(
    _: Caller<SubscriptionsConsume>,
    token: Presented,
    State(app): State<App>,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ body::LIST }>,
) -> Result<Response, Error> {
    let mut fields = Fields::of_body(&body)?;
    let claim = Claim {
        consumer_id: fields.text("consumer_id", 1, TEXT_MAX_LENGTH),
        batch_size: fields.int("max_messages", 10, 1, 1000),
        ack_deadline_seconds: fields
            .optional("ack_deadline_seconds")
            .map(|_| fields.int("ack_deadline_seconds", 1, 1, 43200)),
        only: only(&mut fields),
        auto_ack: fields.boolean("auto_ack").unwrap_or_default(),
    };
    if claim.auto_ack && claim.ack_deadline_seconds.is_some() {
        fields.refuse_as(
            "ack_deadline_seconds",
            "cannot be used with auto_ack: there is no lease",
        );
    }
    let wait = fields.int("wait_seconds", 0, 0, 30);
    let settlements = fields.inside("settle", settle::parse)?;
    fields.finish()?;
    let begin = match settlements {
        None => r#"{"messages":["#.to_owned(),
        Some(settlements) => {
            let settled = settle::settle(&app, id.clone(), settlements).await?;
            answers::begin(&settled, "messages")?
        }
    };
    let wait = Duration::from_secs(u64::from(wait.unsigned_abs()));
    let allowed = || token.check::<SubscriptionsConsume>(&app, &id);
    let claimed = app.engine.pull(id.clone(), claim, wait, allowed).await?;
    let room = (claimed.bytes, claimed.share);
    answers::list(begin, claimed.deliveries, room, move |delivery| {
        pulled(&id, delivery)
    })
}

fn only(fields: &mut Fields<'_>) -> Option<Only> {
    match fields.optional("only")?.as_str() {
        Some("new") => Some(Only::New),
        Some("unseen") => Some(Only::Unseen),
        _ => {
            fields.refuse("only", Rule::OneOf("'new' or 'unseen'"));
            None
        }
    }
}

/// A delivery as it is answered.
#[must_use]
pub fn pulled(subscription_id: &str, delivery: Delivery) -> PulledMessage {
    PulledMessage {
        id: delivery.message_id,
        subscription_id: subscription_id.to_owned(),
        payload: delivery.payload,
        delivery_attempts: delivery.attempts,
        created_at: delivery.published_at,
        receipt: delivery
            .lease
            .map(|lease| receipt(delivery.message_id, lease)),
        attributes: Attributes(delivery.attributes),
        ordering_key: delivery.ordering_key,
        priority: delivery.priority.unwrap_or_default(),
        ack_deadline: delivery.ack_deadline,
    }
}
