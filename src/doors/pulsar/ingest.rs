//! Messages come in: one, or many in one commit.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::caller::{Called, Refused};
use super::names::{self, ATTRIBUTE, TOPIC, accepted_at, message_id, timestamp};
use super::openapi::{Errors, TooLarge};
use super::start;
use crate::app::App;
use crate::auth::scopes::PulsarPublish;
use crate::db::json::JsonText;
use crate::db::publish::{Extras, Publication};
use crate::doors::fields::Fields;
use crate::doors::{body, extract, first, given, tree};
use crate::engine::message::{
    ATTRIBUTE_MAX_LENGTH, ATTRIBUTE_NAME_MAX_LENGTH, MAX_ATTRIBUTES, MAX_SECONDS,
};
use crate::error::{Count, Error, Fault, Form, MAX_FAULTS, Rule, Step};
use crate::telemetry::proxy;

/// Most messages of a bulk, and the longest body.
const MOST: usize = 100;
const BULK_MAX_BYTES: usize = 10 * 1024 * 1024;
/// Of the metadata, beside the topic.
const MAX_METADATA: usize = MAX_ATTRIBUTES - 1;
const PAYLOAD: &str = "payload";
const MESSAGES: &str = "messages";

/// A message.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(as = Message, example = json!({"topic": "orders", "payload": {"order": 17}, "ttl": 300}))]
pub(super) struct NewMessage {
    /// Letters, digits, `-` and `_`, one letter or digit at least. It needs not be created.
    #[schema(min_length = 1, max_length = 255)]
    topic: String,
    /// Any object.
    #[schema(value_type = Object)]
    payload: Value,
    /// How long it can be replayed, in seconds; live delivery is not affected.
    #[schema(minimum = 1)]
    ttl: Option<i64>,
    /// Texts by name, at most 99.
    metadata: Option<std::collections::BTreeMap<String, String>>,
}

/// Several messages.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(as = Bulk,
    example = json!({"messages": [{"topic": "orders", "payload": {"order": 17}}, {"topic": "mails", "payload": {}}]}))]
pub(super) struct NewMessages {
    /// In the order in which subscribers get them.
    #[schema(min_items = 1, max_items = 100)]
    messages: Vec<NewMessage>,
}

/// A message was accepted: it is on disk.
#[derive(Serialize, ToSchema)]
pub(super) struct Accepted {
    /// What it is called.
    #[schema(example = "msg_01932c070a00700080000123456789ab")]
    message_id: String,
    /// Its topic.
    topic: String,
    /// When.
    timestamp: String,
}

/// What became of several messages, in their order.
#[derive(Serialize, ToSchema)]
pub(super) struct BulkAccepted {
    results: Vec<BulkResult>,
    summary: Summary,
}

/// What became of one of several messages.
#[derive(Serialize, ToSchema)]
pub(super) struct BulkResult {
    /// What it is called.
    message_id: String,
    /// Its topic.
    topic: String,
    /// Always `accepted`: all of a request are, or none.
    status: &'static str,
    /// Always null.
    #[schema(required = true)]
    error: Option<String>,
}

/// How many messages there were.
#[derive(Serialize, ToSchema)]
pub(super) struct Summary {
    total: usize,
    accepted: usize,
    rejected: usize,
}

/// Send a message to everybody who is subscribed to its topic
#[utoipa::path(post, path = "/api/v1/messages", tag = "messages", request_body = NewMessage,
    responses((status = 201, body = Accepted), TooLarge, Errors))]
pub(super) async fn send_message(
    called: Called,
    State(app): State<App>,
    request: Request,
) -> Result<Response, Refused> {
    let most = app.settings.pulsar.max_message_size;
    let body = read(&called, request, most, &app).await?;
    let parse = move || {
        let parsed = message(&body, &body, &[])?;
        refuse_any(parsed.1)?;
        parsed.0.ok_or_else(nothing)
    };
    let message = app.budget.work(most.min(body::SMALL), parse).await??;
    let accepted = accept(&called, &app, vec![message]).await?;
    let accepted = accepted.into_iter().next().ok_or_else(nothing)?;
    Ok((StatusCode::CREATED, Json(accepted)).into_response())
}

/// Send up to 100 messages, all or none
#[utoipa::path(post, path = "/api/v1/messages/bulk", tag = "messages", request_body = NewMessages,
    responses((status = 207, body = BulkAccepted), TooLarge, Errors))]
pub(super) async fn send_messages(
    called: Called,
    State(app): State<App>,
    request: Request,
) -> Result<Response, Refused> {
    let each = app.settings.pulsar.max_message_size;
    let most = each.saturating_mul(MOST).min(BULK_MAX_BYTES);
    let body = read(&called, request, most, &app).await?;
    let length = body.len();
    let messages = app.budget.work(length, move || bulk(&body, each)).await??;
    let accepted = accept(&called, &app, messages).await?;
    let total = accepted.len();
    let results = accepted.into_iter().map(|accepted| BulkResult {
        message_id: accepted.message_id,
        topic: accepted.topic,
        status: "accepted",
        error: None,
    });
    let answer = BulkAccepted {
        results: results.collect(),
        summary: Summary {
            total,
            accepted: total,
            rejected: 0,
        },
    };
    Ok((StatusCode::MULTI_STATUS, Json(answer)).into_response())
}

fn nothing() -> Error {
    Error::fault(Vec::new(), Rule::Required)
}

async fn read(called: &Called, request: Request, most: usize, app: &App) -> Result<Bytes, Error> {
    called.caller.allow_some::<PulsarPublish>()?;
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts.headers, body, most, app).await?;
    if bytes.is_empty() {
        return Err(nothing());
    }
    extract::check_is_json(&parts.headers, &bytes)?;
    Ok(bytes)
}

/// A message that was read.
struct Message {
    topic: String,
    payload: JsonText,
    extras: Extras,
}

/// Publish messages, which the caller may, in one commit.
async fn accept(
    called: &Called,
    app: &App,
    messages: Vec<Message>,
) -> Result<Vec<Accepted>, Refused> {
    let topics = messages.iter().map(|message| message.topic.as_str());
    called.caller.allow::<PulsarPublish>(topics)?;
    called
        .caller
        .count(&called.door, &called.guest, messages.len())?;
    let mut topics = Vec::with_capacity(messages.len());
    let mut publication = Publication {
        wants_ids: true,
        ..Publication::default()
    };
    for message in messages {
        topics.push(message.topic);
        publication.payloads.push(message.payload);
        publication.extras.push(message.extras);
    }
    let create = || start::create_topic(app);
    let published = first::publish(app, TOPIC, publication, create).await?;
    let accepted = topics.into_iter().zip(published.message_ids);
    Ok(accepted.map(|(topic, id)| accepted_as(topic, id)).collect())
}

fn accepted_as(topic: String, id: Uuid) -> Accepted {
    proxy::received(&topic);
    Accepted {
        message_id: message_id(id),
        topic,
        timestamp: timestamp(accepted_at(id)),
    }
}

fn bulk(body: &Bytes, each: usize) -> Result<Vec<Message>, Error> {
    let mut texts = tree::object(body).map_err(|_| tree::not_a(Form::Fields, body))?;
    let place = || vec![Step::from(MESSAGES)];
    let refuse = |rule, given| Error::Invalid(vec![Fault::body(place(), rule, given)]);
    let Some(text) = texts.remove(MESSAGES) else {
        return Err(refuse(Rule::Required, json!({})));
    };
    let Ok(list) = tree::list(text.get().as_bytes(), MOST) else {
        return Err(refuse(Rule::Is(Form::List), given::json(text.get())));
    };
    match list.count {
        0 => return Err(refuse(Rule::AtLeast(Count::Items, 1, Some(0)), json!([]))),
        count if count > MOST => {
            let rule = Rule::AtMost(Count::Items, MOST, Some(count));
            return Err(refuse(rule, json!([])));
        }
        _ => {}
    }
    let mut messages = Vec::with_capacity(list.count);
    let mut faults = Vec::new();
    for (position, item) in list.items.into_iter().enumerate() {
        let bytes = item.get().len();
        if bytes > each {
            let text = format!(
                "message {position} has {bytes} bytes, the limit is {each} \
                 (FASTPUBSUB_PULSAR_MAX_MESSAGE_SIZE)"
            );
            return Err(Error::refused(413, text));
        }
        let place = [MESSAGES.into(), position.into()];
        let (read, more) = message(body, item.get().as_bytes(), &place)?;
        messages.extend(read);
        if faults.len() < MAX_FAULTS {
            faults.extend(more);
        }
    }
    refuse_any(faults)?;
    Ok(messages)
}

fn refuse_any(faults: Vec<Fault>) -> Result<(), Error> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid(faults))
}

/// Read a message, which is a part of a body at a place; or what is wrong with it.
///
/// # Errors
/// When it is no JSON.
fn message(
    body: &Bytes,
    text: &[u8],
    place: &[Step],
) -> Result<(Option<Message>, Vec<Fault>), Error> {
    let Ok(mut texts) = tree::object(text) else {
        return match tree::not_a(Form::Fields, text) {
            Error::Invalid(faults) if !place.is_empty() => Ok((None, within(faults, place))),
            error => Err(error),
        };
    };
    let mut faults = Vec::new();
    let payload = match payload(body, texts.remove(PAYLOAD)) {
        Ok(payload) => Some(payload),
        Err(fault) => {
            faults.push(fault);
            None
        }
    };
    let mut others = Map::new();
    for name in ["topic", "ttl", "metadata"] {
        let Some(text) = texts.remove(name) else {
            continue;
        };
        if let Some(value) = tree::part(text) {
            others.insert(name.to_owned(), value);
        } else {
            let rule = Rule::Refused("it is no text, or too large".to_owned());
            faults.push(Fault::body(vec![name.into()], rule, Value::Null));
        }
    }
    let read = match (fields(&Value::Object(others)), payload) {
        (Ok((topic, extras)), Some(payload)) => Some(Message {
            topic,
            payload,
            extras,
        }),
        (Err(Error::Invalid(more)), _) => {
            faults.extend(more);
            None
        }
        (Err(error), _) => return Err(error),
        (Ok(_), None) => None,
    };
    Ok((read, within(faults, place)))
}

fn within(faults: Vec<Fault>, place: &[Step]) -> Vec<Fault> {
    faults
        .into_iter()
        .map(|fault| fault.within(place))
        .collect()
}

fn payload(body: &Bytes, text: Option<&RawValue>) -> Result<JsonText, Fault> {
    let fault = |rule, given| Fault::body(vec![PAYLOAD.into()], rule, given);
    let text = text.ok_or_else(|| fault(Rule::Required, Value::Null))?;
    if !text.get().starts_with('{') {
        return Err(fault(Rule::Is(Form::Object), given::json(text.get())));
    }
    JsonText::part_of(body, text)
        .map_err(|reason| fault(Rule::Refused(reason.to_owned()), Value::Null))
}

/// The topic of a message, and what it has beside its payload.
fn fields(others: &Value) -> Result<(String, Extras), Error> {
    let mut fields = Fields::of_body(others)?;
    let topic = fields.text("topic", 0, usize::MAX);
    if others.get("topic").is_some_and(Value::is_string)
        && let Some(rule) = names::fault(&topic)
    {
        fields.refuse("topic", rule);
    }
    let ttl_seconds = ttl(&mut fields);
    let mut attributes = metadata(&mut fields);
    fields.finish_ignoring_others()?;
    attributes.insert(ATTRIBUTE.to_owned(), json!(topic));
    let attributes =
        JsonText::written(Value::Object(attributes).to_string()).map_err(|reason| {
            Error::fault(vec!["metadata".into()], Rule::Refused(reason.to_owned()))
        })?;
    let extras = Extras {
        attributes: Some(attributes),
        ordering_key: Some(topic.clone()),
        ttl_seconds,
        ..Extras::default()
    };
    Ok((topic, extras))
}

fn ttl(fields: &mut Fields<'_>) -> Option<f64> {
    let most = f64::from(MAX_SECONDS);
    let given = fields.optional("ttl")?;
    // of any size
    if given
        .as_f64()
        .is_some_and(|ttl| ttl > most && ttl.fract() == 0.0)
    {
        return Some(most);
    }
    let seconds = fields.integer("ttl", 1, 1, i64::MAX);
    let seconds = i32::try_from(seconds).unwrap_or(MAX_SECONDS);
    Some(f64::from(seconds).min(most))
}

fn metadata(fields: &mut Fields<'_>) -> Map<String, Value> {
    let Some(value) = fields.optional("metadata") else {
        return Map::new();
    };
    let Some(entries) = value.as_object() else {
        fields.refuse("metadata", Rule::Is(Form::Object));
        return Map::new();
    };
    if entries.len() > MAX_METADATA {
        let rule = Rule::AtMost(Count::Entries, MAX_METADATA, Some(entries.len()));
        fields.refuse("metadata", rule);
        return Map::new();
    }
    for (name, value) in entries {
        let length = name.chars().count();
        let rule = if length == 0 {
            Some(Rule::AtLeast(Count::NameCharacters, 1, None))
        } else if length > ATTRIBUTE_NAME_MAX_LENGTH {
            let most = ATTRIBUTE_NAME_MAX_LENGTH;
            Some(Rule::AtMost(Count::NameCharacters, most, None))
        } else if name == ATTRIBUTE {
            Some(Rule::Refused(format!(
                "{ATTRIBUTE} is the name of the topic"
            )))
        } else if name.contains('\0') {
            Some(Rule::Refused("NUL is not allowed".to_owned()))
        } else {
            match value.as_str() {
                None => Some(Rule::Is(Form::Text)),
                Some(text) if text.chars().count() > ATTRIBUTE_MAX_LENGTH => {
                    Some(Rule::AtMost(Count::Characters, ATTRIBUTE_MAX_LENGTH, None))
                }
                Some(text) if text.contains('\0') => {
                    Some(Rule::Refused("NUL is not allowed".to_owned()))
                }
                Some(_) => None,
            }
        };
        if let Some(rule) = rule {
            fields.refuse_in(&["metadata", name], rule, given::value(value));
        }
    }
    entries.clone()
}
