//! Looking at messages without taking them, and deleting them by id or all at once.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::add::{find, find_all, missing};
use super::bodies::ID_MAX_LENGTH;
use super::caller::{Allowed, MessageId};
use super::openapi::{Errors, NoSuchMessage, TooLarge};
use super::queues::counts;
use super::view::{Done, Message, Page, PageOfMessages};
use crate::app::App;
use crate::auth::scopes::{PyqueueDelete, PyqueueManage, PyqueueRead};
use crate::db;
use crate::db::browse::{Browse, Browsed};
use crate::doors::extract::{JsonBody, QueryValues};
use crate::doors::fields::Fields;
use crate::doors::{answers, body};
use crate::error::{Error, found};
use crate::telemetry::doors::count;

/// Beyond it no queue has messages.
const MAX_OFFSET: i64 = 1_000_000_000;
/// Most ids of one question whether they are there.
const MAX_IDS: usize = 10_000;

/// Which page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub(super) struct PageParams {
    /// Most messages to show; `max_messages` is taken as well.
    #[param(minimum = 1, maximum = 100, default = 10)]
    limit: Option<i32>,
    /// How many to skip.
    #[param(minimum = 0, default = 0)]
    offset: Option<i64>,
}

/// See available messages, the oldest first
#[utoipa::path(get, path = "/queues/{queue_name}/messages", tag = "messages",
    params(("queue_name" = String, Path), PageParams),
    responses((status = 200, body = PageOfMessages), Errors))]
pub(super) async fn get_messages(
    Allowed { queue, .. }: Allowed<PyqueueRead>,
    State(app): State<App>,
    QueryValues(query): QueryValues,
) -> Result<Response, Error> {
    let mut fields = Fields::of_query(&query);
    let limit = match fields.optional("limit") {
        Some(_) => fields.int("limit", 10, 1, 100),
        None => fields.int("max_messages", 10, 1, 100),
    };
    let offset = fields.integer("offset", 0, 0, i64::MAX);
    fields.finish()?;
    let share = answers::share(&app).await?;
    let page = Browse {
        state: Some("available"),
        after: None,
        offset: i32::try_from(offset.min(MAX_OFFSET)).unwrap_or_default(),
        limit,
        message_ids: None,
        max_bytes: app.settings.api_max_answer_bytes,
    };
    let messages = db::browse::browse(&app.database, &queue.id(), &page).await;
    let messages = found(messages)?.unwrap_or_default();
    let total = counts(&app, &queue).await?.available;
    let shown = i64::try_from(messages.len()).unwrap_or(i64::MAX);
    let page = Page {
        count: messages.len(),
        total,
        offset,
        limit,
        // what nobody is given any more may be counted for a moment
        has_more: shown > 0 && offset.saturating_add(shown) < total,
    };
    let begin = answers::begin(&page, "messages")?;
    answers::page(begin, messages, (share, Browsed::size), Message::seen)
}

/// See one message, whatever its state
#[utoipa::path(get, path = "/queues/{queue_name}/message/{message_id}", tag = "messages",
    params(("queue_name" = String, Path), ("message_id" = String, Path)),
    responses((status = 200, body = Message), NoSuchMessage, Errors))]
pub(super) async fn get_message(
    Allowed { queue, .. }: Allowed<PyqueueRead>,
    MessageId(id): MessageId,
    State(app): State<App>,
) -> Result<Json<Message>, Error> {
    let message = find(&app, &queue, id).await?.ok_or_else(missing)?;
    let one = Browse {
        state: None,
        after: None,
        offset: 0,
        limit: 1,
        message_ids: Some(&[message]),
        max_bytes: app.settings.api_max_answer_bytes,
    };
    let messages = db::browse::browse(&app.database, &queue.id(), &one).await;
    let messages = found(messages)?.unwrap_or_default();
    let message = messages.into_iter().next().ok_or_else(missing)?;
    Ok(Json(Message::seen(message)))
}

/// Ids to look for.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
pub(super) struct Ids {
    /// At most 10000.
    message_ids: Vec<String>,
}

/// Which ids are in the queue.
#[derive(Serialize, ToSchema)]
pub(super) struct Existing {
    /// In the order asked.
    existing_ids: Vec<String>,
}

/// See which ids are in the queue
#[utoipa::path(post, path = "/queues/{queue_name}/messages/check-existence", tag = "messages",
    params(("queue_name" = String, Path)), request_body = Ids,
    responses((status = 200, body = Existing), TooLarge, Errors))]
pub(super) async fn check_existence(
    Allowed { queue, .. }: Allowed<PyqueueRead>,
    State(app): State<App>,
    JsonBody(body): JsonBody<{ body::LIST }>,
) -> Result<Json<Existing>, Error> {
    let mut fields = Fields::of_body(&body)?;
    let mut ids = fields.texts("message_ids", MAX_IDS);
    fields.finish_ignoring_others()?;
    ids.retain(|id| id.chars().count() <= ID_MAX_LENGTH);
    let there = find_all(&app, &queue, &ids).await?;
    let there: HashSet<String> = there.into_iter().map(|(id, _)| id).collect();
    ids.retain(|id| there.contains(id));
    Ok(Json(Existing { existing_ids: ids }))
}

/// Delete a message by its id, whether or not somebody holds it
#[utoipa::path(delete, path = "/queues/{queue_name}/messages/by-id/{message_id}", tag = "messages",
    params(("queue_name" = String, Path), ("message_id" = String, Path)),
    responses((status = 200, body = Done), NoSuchMessage, Errors))]
pub(super) async fn delete_by_id(
    Allowed { queue, .. }: Allowed<PyqueueDelete>,
    MessageId(id): MessageId,
    State(app): State<App>,
) -> Result<Json<Done>, Error> {
    let message = find(&app, &queue, id).await?.ok_or_else(missing)?;
    let deleted = app.engine.delete(&queue.id(), &[message]).await;
    if found(deleted)?.is_none_or(|deleted| deleted.is_empty()) {
        return Err(missing());
    }
    count("pyqueue_messages_deleted_total", &queue.0, 1);
    Ok(Json(Done::with("Message deleted")))
}

/// Delete all messages of a queue, whether or not somebody holds them
#[utoipa::path(delete, path = "/queues/{queue_name}/messages", tag = "messages",
    params(("queue_name" = String, Path)), responses((status = 200, body = Done), Errors))]
pub(super) async fn clear_queue(
    Allowed { queue, .. }: Allowed<PyqueueManage>,
    State(app): State<App>,
) -> Result<Json<Done>, Error> {
    // an absent one is as empty
    found(app.engine.purge(&queue.id()).await)?;
    Ok(Json(Done::with("Queue cleared")))
}
