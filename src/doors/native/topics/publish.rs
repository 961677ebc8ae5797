//! `/topics/{id}/publish`: messages with all they may carry, each published once where it has a key.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::scopes::TopicsPublish;
use crate::db::publish::{Publication, Published};
use crate::doors::body;
use crate::doors::caller::Caller;
use crate::doors::extract::{JsonBytes, PathId};
use crate::doors::fields::Fields;
use crate::doors::given;
use crate::doors::native::idempotency::{self, IdempotencyKey};
use crate::doors::native::openapi::{CommonErrors, NotFound, TooLarge};
use crate::doors::native::topics::outgoing::{self, OutgoingMessage};
use crate::doors::tree;
use crate::error::{Error, Form, Step};

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
    /// The positions of those that were published before under their idempotency key, or are live under
    /// their message key.
    duplicates: Vec<usize>,
}

/// Publish messages with attributes, keys, priorities and times, all or none
///
/// A message whose `idempotency_key` was used in this topic within the window is not published again:
/// its id is that of the first one. So is a whole request under a header `Idempotency-Key`. A message is not
/// published either while another one is live under its `message_key`; its id is that of the live one.
#[utoipa::path(post, path = "/topics/{id}/publish", tag = "messages",
    operation_id = "publish_messages",
    params(("id" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 256,
            description = "Under which this request is answered once")),
    request_body = PublishMessages,
    responses((status = 201, body = PublishedMessages), NotFound, TooLarge, CommonErrors))]
pub async fn publish(
    _: Caller<TopicsPublish>,
    State(app): State<App>,
    PathId(id): PathId,
    IdempotencyKey(key): IdempotencyKey,
    JsonBytes(body): JsonBytes<{ body::PUBLISH }>,
) -> Result<(StatusCode, Json<PublishedMessages>), Error> {
    let (text, body_length) = (body.clone(), body.len());
    let parse = move || {
        let publication = read(&text)?;
        Ok::<_, Error>((
            publication,
            key.map(|key| idempotency::request_key(key, &text)),
        ))
    };
    let (publication, request) = app.budget.work(body_length, parse).await??;
    match app.engine.publish(id, publication, request).await {
        Ok(published) => Ok((StatusCode::CREATED, Json(shown(published)))),
        Err(error) => {
            let place = move || placed(error, &body);
            Err(app.budget.work(body_length, place).await?)
        }
    }
}

fn read(body: &Bytes) -> Result<Publication, Error> {
    let Ok(fields) = tree::object(body) else {
        return Err(tree::not_a(Form::Fields, body));
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
        Some(list) => outgoing::read(body, list, &["messages".into()]),
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
            if let [Step::Field(field), Step::Position(_), ..] = fault.path.as_slice()
                && field != "messages"
            {
                fault.path.swap(0, 1);
                fault.path.insert(0, "messages".into());
            }
        }
    }
    with_inputs(idempotency::in_header(error), body)
}

/// What the body held where the engine found a fault.
fn with_inputs(mut error: Error, body: &Bytes) -> Error {
    if let Error::Invalid(faults) = &mut error {
        for fault in faults.iter_mut().filter(|fault| fault.given.is_null()) {
            fault.given = tree::at(body, &fault.path)
                .map(|text| given::json(text.get()))
                .unwrap_or_default();
        }
    }
    error
}
