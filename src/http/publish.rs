//! `/topics/{id}/publish`: messages with all they may carry, each published once where it has a key.

use std::collections::HashMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::extract::{JsonBytes, PathId, parse_json};
use super::openapi::{CommonErrors, NotFound, TooLarge};
use super::outgoing::{self, OutgoingMessage};
use super::validation::{Fields, fault, fault_with};
use crate::app::App;
use crate::auth::caller::{Caller, TopicsPublish};
use crate::db::publish::{Publication, Published, RequestKey};
use crate::error::Error;

/// The header of a key for a whole request.
const HEADER: &str = "Idempotency-Key";
/// Most characters of such a key.
const MAX_KEY_LENGTH: usize = 256;

/// Messages to publish.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
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

/// The key of a whole request, if it has one.
#[derive(Debug)]
pub struct IdempotencyKey(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let mut keys = parts.headers.get_all(HEADER).iter();
        let Some(key) = keys.next() else {
            return Ok(Self(None));
        };
        let visible = key.as_bytes().iter().all(u8::is_ascii_graphic);
        if visible && (1..=MAX_KEY_LENGTH).contains(&key.len()) && keys.next().is_none() {
            return Ok(Self(key.to_str().ok().map(str::to_owned)));
        }
        let msg = "Value error, one key of 1 to 256 visible ASCII characters is expected";
        let input = json!(String::from_utf8_lossy(key.as_bytes()));
        let loc = vec![json!("header"), json!(HEADER)];
        let ctx = json!({"error": {}});
        Err(Error::Invalid(vec![fault_with(
            "value_error",
            loc,
            msg,
            input,
            ctx,
        )]))
    }
}

/// Publish messages with attributes, keys, priorities and times, all or none
///
/// A message whose `idempotency_key` was used in this topic within the window is not published again:
/// its id is that of the first one. So is a whole request under a header `Idempotency-Key`.
#[utoipa::path(post, path = "/topics/{id}/publish", tag = "topics",
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
    JsonBytes(body): JsonBytes,
) -> Result<(StatusCode, Json<PublishedMessages>), Error> {
    let publication = read(&body, app.settings.api_max_message_bytes)?;
    let published = if key.is_some() || publication.has_idempotency_keys() {
        let request = key.map(|key| request_key(key, &body));
        let window_seconds = app.settings.idempotency_window_seconds;
        app.merged
            .publish_once(&id, publication, request, window_seconds)
            .await
    } else {
        app.merged.publish(id, publication).await
    };
    match published {
        Ok(published) => Ok((StatusCode::CREATED, Json(shown(published)))),
        Err(error) => Err(placed(error, &body)),
    }
}

fn read(body: &Bytes, max_message_bytes: usize) -> Result<Publication, Error> {
    let Ok(fields) = serde_json::from_slice::<HashMap<String, &RawValue>>(body) else {
        let value = parse_json(body)?;
        Fields::of_body(&value)?.finish()?;
        // an object whose numbers no value can hold
        let loc = vec![json!("body")];
        let msg = "JSON decode error";
        return Err(Error::Invalid(vec![fault(
            "json_invalid",
            loc,
            msg,
            Value::Null,
        )]));
    };
    if fields.keys().any(|name| name != "messages") || fields.is_empty() {
        let value = parse_json(body)?;
        let mut found = Fields::of_body(&value)?;
        found.required("messages");
        found.refuse_others(&["messages"]);
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

fn request_key(key: String, body: &Bytes) -> RequestKey {
    let digest = Sha256::digest(body);
    RequestKey {
        key,
        fingerprint: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
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
                [_, field] if field == "idempotency_key" => {
                    fault.loc = vec![json!("header"), json!(HEADER)];
                }
                _ => {}
            }
        }
    }
    with_inputs(error, body)
}

fn with_inputs(error: Error, body: &Bytes) -> Error {
    match parse_json(body) {
        Ok(value) => error.with_input_of(&value),
        Err(_) => error,
    }
}
