//! Receiving messages, and deleting what was received.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::add::missing;
use super::caller::{Allowed, MessageId};
use super::openapi::{Errors, NoSuchMessage};
use super::view::{Done, Message, Page, PageOfMessages};
use crate::app::App;
use crate::auth::scopes::{PyqueueDelete, PyqueueRead};
use crate::db::messages::{Claim, Only};
use crate::db::settlements::{Action, Settlement};
use crate::doors::extract::QueryValues;
use crate::doors::fields::Fields;
use crate::doors::{answers, receipts};
use crate::engine::Claimed;
use crate::error::{Error, found};
use crate::telemetry::doors::count;

/// Most characters of the name of a consumer.
const CONSUMER_MAX_LENGTH: usize = 255;
/// Who receives without a name. No consumer may have this one.
const NOBODY: &str = "PyQueue client without a consumer_id";
/// Longest time that a message may be hidden, in seconds.
const VISIBILITY_MAX_SECONDS: i32 = 43200;

/// How to receive.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub(super) struct ReceiveParams {
    /// Most messages to receive.
    #[param(minimum = 1, maximum = 100, default = 10)]
    max_messages: Option<i32>,
    /// For how long others do not get them, in seconds.
    #[param(minimum = 1, maximum = 43200, default = 30)]
    visibility_timeout: Option<i32>,
    /// Who receives: a message that this consumer has received before is not for it.
    #[param(min_length = 1, max_length = 255)]
    consumer_id: Option<String>,
    /// Delete what is received, in the same step.
    #[param(default = false)]
    delete_after_receive: Option<bool>,
    /// Only messages that nobody has received before.
    #[param(default = false)]
    only_new: Option<bool>,
}

/// Receive messages: nobody else gets them until the visibility timeout is over
#[utoipa::path(post, path = "/queues/{queue_name}/messages/receive", tag = "messages",
    params(("queue_name" = String, Path), ReceiveParams),
    responses((status = 200, body = PageOfMessages), Errors))]
pub(super) async fn receive_messages(
    Allowed { queue, .. }: Allowed<PyqueueRead>,
    State(app): State<App>,
    QueryValues(query): QueryValues,
) -> Result<Response, Error> {
    let mut fields = Fields::of_query(&query);
    let limit = fields.int("max_messages", 10, 1, 100);
    let seconds = app.settings.pyqueue.default_visibility_timeout;
    let seconds = fields.int("visibility_timeout", seconds, 1, VISIBILITY_MAX_SECONDS);
    let consumer_id = fields
        .optional("consumer_id")
        .map(|_| fields.text("consumer_id", 1, CONSUMER_MAX_LENGTH));
    if consumer_id.as_deref() == Some(NOBODY) {
        fields.refuse_as("consumer_id", "it stands for clients without one");
    }
    let deletes = fields.boolean("delete_after_receive").unwrap_or(false);
    let only_new = fields.boolean("only_new").unwrap_or(false);
    fields.finish()?;
    // what nobody received the consumer has not received either
    let only = match (only_new, &consumer_id) {
        (true, _) => Some(Only::New),
        (false, Some(_)) => Some(Only::Unseen),
        (false, None) => None,
    };
    let claim = Claim {
        consumer_id: consumer_id.unwrap_or_else(|| NOBODY.to_owned()),
        batch_size: limit,
        ack_deadline_seconds: (!deletes).then_some(seconds),
        only,
        auto_ack: deletes,
    };
    let received = app.engine.consume(queue.id(), claim).await;
    let Claimed {
        deliveries,
        bytes,
        share,
    } = found(received)?.unwrap_or_default();
    let received = deliveries.len();
    count("pyqueue_messages_received_total", &queue.0, received);
    let shown = if deletes {
        count("pyqueue_messages_deleted_total", &queue.0, received);
        Message::taken
    } else {
        Message::received
    };
    let page = Page {
        count: received,
        total: i64::try_from(received).unwrap_or_default(),
        offset: 0,
        limit,
        has_more: usize::try_from(limit) == Ok(received),
    };
    let begin = answers::begin(&page, "messages")?;
    answers::list(begin, deliveries, (bytes, share), shown)
}

/// Delete a message that was received, by its handle
#[utoipa::path(delete, path = "/queues/{queue_name}/messages/{message_id}", tag = "messages",
    params(("queue_name" = String, Path),
        ("message_id" = String, Path, description = "The receipt_handle.")),
    responses((status = 200, body = Done), NoSuchMessage, Errors))]
pub(super) async fn delete_message(
    Allowed { queue, .. }: Allowed<PyqueueDelete>,
    MessageId(handle): MessageId,
    State(app): State<App>,
) -> Result<Json<Done>, Error> {
    let (message_id, lease) = receipts::parse(&handle).ok_or_else(missing)?;
    let settlement = Settlement {
        message_id,
        lease,
        action: Action::Ack,
    };
    let settled = app.engine.settle(queue.id(), vec![settlement]).await;
    let settled = found(settled)?.unwrap_or_default();
    if settled.iter().any(|settled| settled.status == "acked") {
        count("pyqueue_messages_deleted_total", &queue.0, 1);
        Ok(Json(Done::with("Message deleted")))
    } else {
        Err(missing())
    }
}
