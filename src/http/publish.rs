//! `/topics/{id}/publish`: messages with all they may carry, each published once where it has a key.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::extract::{JsonBytes, PathId};
use super::idempotency::{self, IdempotencyKey};
use super::openapi::{CommonErrors, NotFound, TooLarge};
use super::outgoing::{self, OutgoingMessage};
use super::validation::Fields;
use super::{body, tree};
use crate::app::App;
use crate::auth::caller::{Caller, TopicsPublish};
use crate::db::publish::{Publication, Published};
use crate::error::Error;
use crate::given;

/// Messages to publish.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"messages": [
    {"payload": {"event": "user.created", "country": "BR"}, "attributes": {"region": "eu"}},
    {"payload": {"event": "user.created", "country": "US"}, "delay_seconds": 5}]}))]
pub struct PublishMessages {
    /// The messages, in the order in which they are to be delivered.
    #[schema(min_items = 1, max_items = 1000)]
    messages: Vec<OutgoingMessage>,
}

/// What was published.
#[derive(Serialize, ToSchema)]
pub struct PublishedMessages {
    /// The ids of the messages, in order.
    message_ids: Vec<Uuid>,
    /// The positions of those that were published before under their idempotency key.
    duplicates: Vec<usize>,
}

/// Publish messages with attributes, keys, priorities and times, all or none
///
/// A message whose `idempotency_key` was used in this topic within the window is not published again:
/// its id is that of the first one. So is a whole request under a header `Idempotency-Key`.
#[utoipa::path(post, path = "/topics/{id}/publish", tag = "messages",
    operation_id = "publish_messages",
    params(("id" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 256,
            description = "Under which this request is answered once")),
    request_body = PublishMessages,
    responses((status = 201, body = PublishedMessages), NotFound, TooLarge, CommonErrors),
    security((), ("oauth2" = ["topics:publish"])))]
pub async fn publish(
    _: Caller<TopicsPublish>,
    State(app): State<App>,
    PathId(id): PathId,
    IdempotencyKey(key): IdempotencyKey,
    JsonBytes(body): JsonBytes<{ body::PUBLISH }>,
) -> Result<(StatusCode, Json<PublishedMessages>), Error> {
    let window_seconds = app.settings.idempotency_window_seconds;
    let max_message_bytes = app.settings.api_max_message_bytes;
    let (text, body_length) = (body.clone(), body.len());
    let parse = move || {
        let publication = read(&text, max_message_bytes)?;
        Ok::<_, Error>((
            publication,
            key.map(|key| idempotency::request_key(key, &text)),
        ))
    };
    let (publication, request) = app.budget.work(body_length, parse).await??;
    let published = if request.is_some() || publication.has_idempotency_keys() {
        app.merged
            .publish_once(&id, publication, request, window_seconds)
            .await
    } else {
        app.merged.publish(id, publication).await
    };
    match published {
        Ok(published) => Ok((StatusCode::CREATED, Json(shown(published)))),
        Err(error) => {
            let place = move || placed(error, &body);
            Err(app.budget.work(body_length, place).await?)
        }
    }
}

fn read(body: &Bytes, max_message_bytes: usize) -> Result<Publication, Error> {
    let Ok(fields) = tree::object(body) else {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        return Err(tree::not_a("model_attributes_type", msg, body));
    };
    if fields.keys().any(|name| name != "messages") || fields.is_empty() {
        let values = fields.iter();
        let values = values.map(|(name, text)| (name.clone(), given::outline(text.get())));
        let values = Value::Object(values.collect());
        let mut found = Fields::of_body(&values)?;
        found.required("messages");
        found.finish()?;
    }
    match fields.get("messages") {
        Some(list) => {
            let loc = [json!("body"), json!("messages")];
            outgoing::read(body, list, &loc, max_message_bytes)
        }
        None => Ok(Publication::default()),
    }
}

fn shown(published: Published) -> PublishedMessages {
    let duplicates = published.duplicates.into_iter().enumerate();
    PublishedMessages {
        message_ids: published.message_ids,
        duplicates: duplicates
            .filter_map(|(position, duplicate)| duplicate.then_some(position))
            .collect(),
    }
}

/// A refusal of the engine, which knows fields and positions, by its place in the request.
fn placed(mut error: Error, body: &Bytes) -> Error {
    if let Error::Invalid(faults) = &mut error {
        for fault in faults {
            match fault.loc.as_slice() {
                [place, field, position, rest @ ..] if position.is_u64() && field != "messages" => {
                    let messages = json!("messages");
                    let mut loc = vec![place.clone(), messages, position.clone(), field.clone()];
                    loc.extend(rest.iter().cloned());
                    fault.loc = loc;
                }
                _ => {}
            }
        }
    }
    with_inputs(idempotency::in_header(error), body)
}

/// What the body held where the engine found a fault.
fn with_inputs(mut error: Error, body: &Bytes) -> Error {
    if let Error::Invalid(faults) = &mut error {
        for fault in faults.iter_mut().filter(|fault| fault.input.is_null()) {
            let path = fault.loc.get(1..).unwrap_or_default();
            fault.input = tree::at(body, path)
                .map(|text| given::json(text.get()))
                .unwrap_or_default();
        }
    }
    error
}
