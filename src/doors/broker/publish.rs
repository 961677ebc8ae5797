//! Publishing to queues and topics, which come with their first message.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json, response::IntoResponse, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::caller::Allowed;
use super::names::Kind;
use super::openapi::{Errors, TooLarge};
use super::start;
use super::view::{self, ROUTING_KEY};
use crate::app::App;
use crate::auth::scopes::BrokerPublish;
use crate::db::json::JsonText;
use crate::db::publish::{Extras, Publication};
use crate::doors::extract::{JsonBytes, QueryValues};
use crate::doors::fields::Fields;
use crate::doors::first;
use crate::doors::{body, tree};
use crate::engine::message::{IDEMPOTENCY_KEY_MAX_LENGTH, MAX_PRIORITY, MAX_SECONDS};
use crate::error::{Error, Fault, Form, Rule};
use crate::telemetry::doors::count;

/// Most characters of a routing key.
const ROUTING_KEY_MAX_LENGTH: usize = 1024;
/// Shortest life of a message, in seconds.
const TTL_MIN_SECONDS: f64 = 0.001;
/// What is shorter becomes so long: a message must not be over before it is stored.
const TTL_LEAST_SECONDS: f64 = 0.1;
const MESSAGE: &str = "message";

/// A message to a queue.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"message": {"order": 17, "amount": 99.5}, "idempotency_key": "order-17"}))]
pub(super) struct QueueMessage {
    /// Any JSON value.
    message: Value,
    /// A message under a key that was used for this queue within the window is not published again.
    #[schema(min_length = 1, max_length = 256)]
    idempotency_key: Option<String>,
    /// Higher ones are delivered first.
    #[schema(minimum = 0, maximum = 9, default = 0)]
    priority: Option<i32>,
    /// How long until it can be pulled, in seconds.
    #[schema(minimum = 0, maximum = 31_536_000, default = 0)]
    delay_seconds: Option<f64>,
    /// How long it can be pulled, in seconds.
    #[schema(minimum = 0.001, maximum = 31_536_000)]
    ttl_seconds: Option<f64>,
}

/// A message to a topic.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"routing_key": "order.created", "message": {"order": 17}}))]
pub(super) struct TopicMessage {
    /// Words joined by dots, which the patterns of subscriptions match. It may stand in the query.
    #[schema(max_length = 1024, default = "")]
    routing_key: Option<String>,
    /// Any JSON value.
    message: Value,
    /// A message under a key that was used for this topic within the window is not published again.
    #[schema(min_length = 1, max_length = 256)]
    idempotency_key: Option<String>,
    /// Higher ones are delivered first.
    #[schema(minimum = 0, maximum = 9, default = 0)]
    priority: Option<i32>,
    /// How long until it can be pulled, in seconds.
    #[schema(minimum = 0, maximum = 31_536_000, default = 0)]
    delay_seconds: Option<f64>,
    /// How long it can be pulled, in seconds.
    #[schema(minimum = 0.001, maximum = 31_536_000)]
    ttl_seconds: Option<f64>,
}

/// The routing key, for clients that keep bodies free of it.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub(super) struct RoutingKeyParam {
    /// That of the body wins.
    #[param(max_length = 1024)]
    routing_key: Option<String>,
}

/// What came of a publish to a queue.
#[derive(Serialize, ToSchema)]
pub(super) struct PublishedToQueue {
    /// The message; the first one under its key.
    message_id: Uuid,
    /// The queue.
    #[schema(example = "payments")]
    queue: String,
    /// Its key was used before: nothing was published.
    duplicate: bool,
}

/// What came of a publish to a topic.
#[derive(Serialize, ToSchema)]
pub(super) struct PublishedToTopic {
    /// The message; the first one under its key.
    message_id: Uuid,
    /// The topic.
    #[schema(example = "orders")]
    topic: String,
    /// Its key was used before: nothing was published.
    duplicate: bool,
}

/// Publish a message to a queue, which comes with its first one
#[utoipa::path(post, path = "/queues/{name}/publish", tag = "queues",
    params(("name" = String, Path)), request_body = QueueMessage,
    responses((status = 201, body = PublishedToQueue),
        (status = 200, body = PublishedToQueue, description = "Its key was used before"),
        TooLarge, Errors))]
pub(super) async fn publish_to_queue(
    Allowed { name, .. }: Allowed<BrokerPublish>,
    State(app): State<App>,
    JsonBytes(body): JsonBytes<{ body::PUBLISH }>,
) -> Result<Response, Error> {
    let publication = parse(&app, body, None).await?;
    let (message_id, duplicate) = publish(&app, Kind::Queue, &name, publication).await?;
    let queue = name;
    Ok(answer(
        duplicate,
        PublishedToQueue {
            message_id,
            queue,
            duplicate,
        },
    ))
}

/// Publish a message to every subscription of a topic whose pattern matches
#[utoipa::path(post, path = "/topics/{name}/publish", tag = "topics",
    params(("name" = String, Path), RoutingKeyParam), request_body = TopicMessage,
    responses((status = 201, body = PublishedToTopic),
        (status = 200, body = PublishedToTopic, description = "Its key was used before"),
        TooLarge, Errors))]
pub(super) async fn publish_to_topic(
    Allowed { name, .. }: Allowed<BrokerPublish>,
    State(app): State<App>,
    QueryValues(query): QueryValues,
    JsonBytes(body): JsonBytes<{ body::PUBLISH }>,
) -> Result<Response, Error> {
    let publication = parse(&app, body, Some(query)).await?;
    let (message_id, duplicate) = publish(&app, Kind::Topic, &name, publication).await?;
    let topic = name;
    Ok(answer(
        duplicate,
        PublishedToTopic {
            message_id,
            topic,
            duplicate,
        },
    ))
}

fn answer(duplicate: bool, published: impl Serialize) -> Response {
    let status = if duplicate {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    (status, Json(published)).into_response()
}

/// The message's id, and whether it was published before.
async fn publish(
    app: &App,
    kind: Kind,
    name: &str,
    publication: Publication,
) -> Result<(Uuid, bool), Error> {
    let create = || async {
        match kind {
            Kind::Queue => start::create_queue(app, name).await,
            Kind::Topic => start::create_topic(app, name).await,
        }
    };
    let published = first::publish(app, &kind.id(name), publication, create).await?;
    let duplicate = published.duplicates.contains(&true);
    if !duplicate {
        count(
            "broker_messages_published_total",
            &view::label(kind, name),
            1,
        );
    }
    let message_id = published.message_ids.first().copied();
    Ok((message_id.unwrap_or_default(), duplicate))
}

/// Read a body: of a topic with its query, of a queue without one.
async fn parse(
    app: &App,
    body: Bytes,
    query: Option<Map<String, Value>>,
) -> Result<Publication, Error> {
    let length = body.len();
    let parse = move || publication(&body, query.as_ref());
    app.budget.work(length, parse).await?
}

fn publication(body: &Bytes, query: Option<&Map<String, Value>>) -> Result<Publication, Error> {
    let mut texts = tree::object(body).map_err(|_| tree::not_a(Form::Fields, body))?;
    let mut faults = Vec::new();
    let payload = payload(body, texts.remove(MESSAGE));
    let payload = payload.map_err(|fault| faults.push(fault)).ok();
    let mut others = Map::new();
    for (name, text) in texts {
        match tree::part(text) {
            Some(value) => {
                others.insert(name, value);
            }
            None => {
                let rule = Rule::Refused("it is no text, or too large".to_owned());
                faults.push(Fault::body(vec![name.as_str().into()], rule, Value::Null));
            }
        }
    }
    let others = Value::Object(others);
    let extras = match extras(&others, query) {
        Ok(extras) => Some(extras),
        Err(Error::Invalid(more)) => {
            faults.extend(more);
            None
        }
        Err(error) => return Err(error),
    };
    match (payload, extras) {
        (Some(payload), Some(extras)) if faults.is_empty() => Ok(Publication {
            payloads: vec![payload],
            extras: if extras.is_empty() {
                Vec::new()
            } else {
                vec![extras]
            },
            wants_ids: true,
            // of a queue whose subscription was deleted natively nobody would get it
            wants_subscriptions: query.is_none(),
        }),
        _ => Err(Error::Invalid(faults)),
    }
}

fn payload(body: &Bytes, text: Option<&RawValue>) -> Result<JsonText, Fault> {
    let fault = |rule| Fault::body(vec![MESSAGE.into()], rule, Value::Null);
    let text = text.ok_or_else(|| fault(Rule::Required))?;
    JsonText::part_of(body, text).map_err(|reason| fault(Rule::Refused(reason.to_owned())))
}

/// What a message has beside its payload.
fn extras(others: &Value, query: Option<&Map<String, Value>>) -> Result<Extras, Error> {
    let mut fields = Fields::of_body(others)?;
    let idempotency_key = fields
        .optional("idempotency_key")
        .map(|_| fields.text("idempotency_key", 1, IDEMPOTENCY_KEY_MAX_LENGTH));
    let priority = fields
        .optional("priority")
        .map(|_| fields.int("priority", 0, 0, MAX_PRIORITY))
        .filter(|priority| *priority > 0);
    let most = f64::from(MAX_SECONDS);
    let delay_seconds = fields
        .optional("delay_seconds")
        .map(|_| fields.number("delay_seconds", 0.0, 0.0, most))
        .filter(|seconds| *seconds > 0.0);
    let ttl_seconds = fields
        .optional("ttl_seconds")
        .map(|_| fields.number("ttl_seconds", most, TTL_MIN_SECONDS, most))
        .map(|seconds| seconds.max(TTL_LEAST_SECONDS));
    let is_in_body = query.is_some() && fields.optional(ROUTING_KEY).is_some();
    let in_body = is_in_body.then(|| fields.text(ROUTING_KEY, 0, ROUTING_KEY_MAX_LENGTH));
    fields.finish()?;
    let routing_key = match (in_body, query) {
        (Some(key), _) => Some(key),
        (None, Some(query)) => Some(key_of(query)?),
        (None, None) => None,
    };
    let attributes = routing_key.map(|key| attributes(&key)).transpose()?;
    Ok(Extras {
        attributes,
        priority: priority.and_then(|priority| i16::try_from(priority).ok()),
        delay_seconds,
        ttl_seconds,
        idempotency_key,
        ..Extras::default()
    })
}

fn key_of(query: &Map<String, Value>) -> Result<String, Error> {
    let mut fields = Fields::of_query(query);
    let key = fields
        .optional(ROUTING_KEY)
        .map(|_| fields.text(ROUTING_KEY, 0, ROUTING_KEY_MAX_LENGTH));
    fields.finish()?;
    Ok(key.unwrap_or_default())
}

fn attributes(routing_key: &str) -> Result<JsonText, Error> {
    JsonText::written(json!({ ROUTING_KEY: routing_key }).to_string())
        .map_err(|reason| Error::refused(422, reason))
}
