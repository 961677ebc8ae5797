//! Adding messages, and changing those that are in a queue.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::bodies::{self, Sent};
use super::caller::{Allowed, MessageId, Queue};
use super::openapi::{Errors, NoSuchMessage, TooLarge};
use super::start;
use super::view::{Done, ID};
use crate::app::App;
use crate::auth::scopes::PyqueueWrite;
use crate::db;
use crate::db::json::JsonText;
use crate::db::publish::{Extras, Publication};
use crate::doors::extract::JsonBytes;
use crate::doors::{body, first};
use crate::error::{Error, found};
use crate::telemetry::doors::count;

/// A message to add.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"id": "order-1", "message_body": {"sku": "a-7", "amount": 2}}))]
pub(super) struct NewMessage {
    /// Its id, unique among the messages in the queue; a UUID if there is none.
    #[schema(min_length = 1, max_length = 256)]
    id: Option<String>,
    /// An object, or a text, which becomes `{"content": TEXT}`. `message` is taken as well.
    #[schema(value_type = Object)]
    message_body: Value,
}

/// That a message is in the queue.
#[derive(Serialize, ToSchema)]
pub(super) struct Added {
    /// Its id.
    #[schema(example = "order-1")]
    id: String,
    /// Always `success`.
    status: &'static str,
    /// Always null: nobody has received it.
    #[schema(required = true)]
    receipt_handle: Option<String>,
}

/// Add a message; the queue comes with its first one
///
/// A message whose id is in the queue already changes nothing, and is answered alike.
#[utoipa::path(post, path = "/queues/{queue_name}/messages", tag = "messages",
    params(("queue_name" = String, Path)), request_body = NewMessage,
    responses((status = 200, body = Added), TooLarge, Errors))]
pub(super) async fn add_message(
    Allowed { queue, .. }: Allowed<PyqueueWrite>,
    State(app): State<App>,
    JsonBytes(body): JsonBytes<{ body::PUBLISH }>,
) -> Result<Json<Added>, Error> {
    let Sent { id, payload } = parse(&app, body, true).await?;
    let message = publication(&id, payload)?;
    let create = || start::create_queue(&app, &queue);
    let published = first::publish(&app, &queue.id(), message, create).await?;
    if !published.duplicates.contains(&true) {
        count("pyqueue_messages_added_total", &queue.0, 1);
    }
    Ok(Json(Added {
        id,
        status: "success",
        receipt_handle: None,
    }))
}

/// Change what a message holds; its place, its state and its handle stay
#[utoipa::path(put, path = "/queues/{queue_name}/messages/by-id/{message_id}", tag = "messages",
    params(("queue_name" = String, Path), ("message_id" = String, Path)), request_body = NewMessage,
    responses((status = 200, body = Done), NoSuchMessage, TooLarge, Errors))]
pub(super) async fn update_message(
    Allowed { queue, .. }: Allowed<PyqueueWrite>,
    MessageId(message_id): MessageId,
    State(app): State<App>,
    JsonBytes(body): JsonBytes<{ body::PUBLISH }>,
) -> Result<Json<Done>, Error> {
    let Sent { payload, .. } = parse(&app, body, false).await?;
    let message = find(&app, &queue, message_id).await?.ok_or_else(missing)?;
    let updated = app
        .engine
        .update(&queue.id(), message, &payload, None)
        .await;
    if found(updated)? == Some(true) {
        Ok(Json(Done::with("Message updated")))
    } else {
        Err(missing())
    }
}

async fn parse(app: &App, body: Bytes, has_id: bool) -> Result<Sent, Error> {
    let most = app.settings.pyqueue.max_message_size;
    let length = body.len();
    app.budget
        .work(length, move || bodies::parse(&body, most, has_id))
        .await?
}

/// The one message of a publish.
fn publication(id: &str, payload: JsonText) -> Result<Publication, Error> {
    let attributes = JsonText::written(json!({ ID: id }).to_string())
        .map_err(|reason| Error::refused(422, reason))?;
    Ok(Publication {
        payloads: vec![payload],
        extras: vec![Extras {
            attributes: Some(attributes),
            message_key: Some(id.to_owned()),
            ..Extras::default()
        }],
        wants_ids: false,
        wants_subscriptions: true,
    })
}

/// The message that has an id now, in a queue.
pub(super) async fn find(
    app: &App,
    queue: &Queue,
    id: String,
) -> Result<Option<uuid::Uuid>, Error> {
    let all = find_all(app, queue, &[id]).await?;
    Ok(all.into_iter().next().map(|(_, message_id)| message_id))
}

/// The messages that have some ids now, in a queue; none where there is no such queue.
pub(super) async fn find_all(
    app: &App,
    queue: &Queue,
    ids: &[String],
) -> Result<Vec<(String, uuid::Uuid)>, Error> {
    // Postgres cannot be asked for NUL
    let ids: Vec<&str> = ids
        .iter()
        .map(String::as_str)
        .filter(|id| !id.contains('\0'))
        .collect();
    let messages = db::message_keys::find(&app.database, &queue.id(), &ids).await;
    Ok(found(messages)?.unwrap_or_default())
}

/// That no message has an id or a handle.
pub(super) fn missing() -> Error {
    Error::refused(404, "Message not found")
}
