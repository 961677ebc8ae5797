//! `/transactions`: acks and publishes in one step.

use std::collections::HashMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::scopes::{SubscriptionsConsume, TopicsPublish};
use crate::db::transactions::{Acks, Publishes};
use crate::doors::body;
use crate::doors::caller::CallerOnSome;
use crate::doors::extract::JsonBytes;
use crate::doors::fields::Fields;
use crate::doors::given;
use crate::doors::native::openapi::{CommonErrors, NotFound, StaleReceipts, TooLarge};
use crate::doors::native::topics::outgoing::{self, OutgoingMessage};
use crate::doors::receipts;
use crate::doors::tree::{self, parse_json};
use crate::error::{Count, Error, Fault, Form, MAX_FAULTS, Rule, Step};

/// Most acks and messages of a transaction, in sum.
const MAX_ITEMS: usize = 1000;

/// What is done together.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"acks": [], "publishes": [
    {"topic_id": "user-events", "messages": [{"payload": {"event": "user.greeted"}}]}]}))]
pub struct Transaction {
    /// What to ack. With the messages at most 1000.
    acks: Option<Vec<TransactionAck>>,
    /// What to publish.
    publishes: Option<Vec<TransactionPublish>>,
}

/// A delivery to ack.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
pub struct TransactionAck {
    /// Its subscription.
    subscription_id: String,
    /// Its receipt.
    receipt: String,
}

/// Messages to publish to one topic.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
pub struct TransactionPublish {
    /// The topic.
    topic_id: String,
    /// The messages, at least one.
    messages: Vec<OutgoingMessage>,
}

/// What was published.
#[derive(Serialize, ToSchema)]
pub struct TransactionApplied {
    /// The ids of the messages, a list for each element of `publishes`.
    message_ids: Vec<Vec<Uuid>>,
}

/// Ack and publish in one step: all of it, or nothing
///
/// A single stale receipt undoes everything; the answer then names all that are stale. Needs the scope
/// `subscriptions:consume` for each subscription and `topics:publish` for each topic.
#[utoipa::path(post, path = "/transactions", tag = "messages", request_body = Transaction,
    responses((status = 201, body = TransactionApplied), NotFound, StaleReceipts, TooLarge,
        CommonErrors))]
pub async fn apply_transaction(
    consumer: CallerOnSome<SubscriptionsConsume>,
    publisher: CallerOnSome<TopicsPublish>,
    State(app): State<App>,
    JsonBytes(body): JsonBytes<{ body::PUBLISH }>,
) -> Result<(StatusCode, Json<TransactionApplied>), Error> {
    let (text, length) = (body.clone(), body.len());
    let parse = move || transaction(&outline(&text)?);
    let Asked {
        receipts,
        acks,
        topic_ids,
        counts,
    } = app.budget.work(length, parse).await??;
    for subscription_id in &acks.subscription_ids {
        consumer.allow(subscription_id)?;
    }
    for topic_id in &topic_ids {
        publisher.allow(topic_id)?;
    }
    let parse = move || messages(&body, topic_ids);
    let messages = app.budget.work(length, parse).await??;
    let applied = app.engine.apply(&acks, &messages).await;
    let mut ids = applied
        .map_err(|error| named(error, &receipts))?
        .into_iter();
    let message_ids = counts
        .into_iter()
        .map(|count| ids.by_ref().take(count).collect())
        .collect();
    Ok((
        StatusCode::CREATED,
        Json(TransactionApplied { message_ids }),
    ))
}

/// A body as a tree, but for its messages: of those only how many there are, up to too many.
fn outline(body: &Bytes) -> Result<Value, Error> {
    let Ok(fields) = tree::object(body) else {
        return Err(tree::not_a(Form::Fields, body));
    };
    let mut values = Map::new();
    for (name, text) in fields {
        let value = match name.as_str() {
            "publishes" => list_of(text, publish_outline),
            "acks" => parse_json(text.get().as_bytes())?,
            _ => given::outline(text.get()),
        };
        values.insert(name, value);
    }
    Ok(Value::Object(values))
}

fn publish_outline(text: &RawValue) -> Value {
    let Ok(fields) = tree::object(text.get().as_bytes()) else {
        return given::outline(text.get());
    };
    let outline = |(name, text): (String, &RawValue)| {
        let value = match name.as_str() {
            "messages" => list_of(text, |_| Value::Null),
            _ => given::outline(text.get()),
        };
        (name, value)
    };
    Value::Object(fields.into_iter().map(outline).collect())
}

/// The outlines of the elements of a list, one more than there may be.
fn list_of(text: &RawValue, outline: impl Fn(&RawValue) -> Value) -> Value {
    match tree::list(text.get().as_bytes(), MAX_ITEMS + 1) {
        Ok(list) => Value::Array(list.items.into_iter().map(outline).collect()),
        Err(_) => given::outline(text.get()),
    }
}

/// The list of a field, empty when it is absent.
fn items<'a>(body: &'a Value, name: &str) -> &'a [Value] {
    body.get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// What a body asks for, but for its messages.
#[derive(Default)]
struct Asked {
    receipts: Vec<String>,
    /// What the receipts stand for.
    acks: Acks,
    /// Of each publish.
    topic_ids: Vec<String>,
    /// How many messages each has.
    counts: Vec<usize>,
}

/// What the outline of a body asks for, all but the messages checked.
fn transaction(body: &Value) -> Result<Asked, Error> {
    let mut fields = Fields::of_body(body)?;
    for name in ["acks", "publishes"] {
        if fields.optional(name).is_some_and(|value| !value.is_array()) {
            fields.refuse(name, Rule::Is(Form::List));
        }
    }
    let publishes = items(body, "publishes");
    let count = items(body, "acks").len()
        + publishes
            .iter()
            .map(|publish| items(publish, "messages").len())
            .sum::<usize>();
    if count > MAX_ITEMS {
        let text = format!("at most {MAX_ITEMS} acks and messages in sum, not {count}");
        fields.refuse_as("publishes", text);
    }
    fields.finish()?;

    let mut faults = Vec::new();
    let mut asked = Asked::default();
    for (position, value) in items(body, "acks").iter().enumerate() {
        let place = ["acks".into(), position.into()];
        if let Some((subscription_id, receipt)) = within(&place, &mut faults, || ack(value)) {
            let (message_id, lease) = receipts::parse(receipt).unwrap_or_default();
            asked.receipts.push(receipt.to_owned());
            asked.acks.subscription_ids.push(subscription_id);
            asked.acks.message_ids.push(message_id);
            asked.acks.leases.push(lease);
        }
    }
    for (position, value) in publishes.iter().enumerate() {
        let place = ["publishes".into(), position.into()];
        if let Some((topic_id, count)) = within(&place, &mut faults, || publish(value)) {
            asked.topic_ids.push(topic_id);
            asked.counts.push(count);
        }
    }
    if faults.is_empty() {
        Ok(asked)
    } else {
        faults.truncate(MAX_FAULTS);
        Err(Error::Invalid(faults))
    }
}

fn ack(value: &Value) -> Result<(String, &str), Error> {
    let mut fields = Fields::of_body(value)?;
    let subscription_id = fields.id("subscription_id");
    fields.text("receipt", 0, 100);
    let receipt = value.get("receipt").and_then(Value::as_str);
    if receipt.is_some_and(|receipt| receipts::parse(receipt).is_none()) {
        fields.refuse_as("receipt", "not a receipt");
    }
    fields.finish()?;
    Ok((subscription_id, receipt.unwrap_or_default()))
}

/// The topic of a publish, and how many messages it has.
fn publish(value: &Value) -> Result<(String, usize), Error> {
    let mut fields = Fields::of_body(value)?;
    let topic_id = fields.id("topic_id");
    match fields.required("messages") {
        None => {}
        Some(Value::Array(messages)) if !messages.is_empty() => {}
        Some(Value::Array(_)) => {
            fields.refuse("messages", Rule::AtLeast(Count::Items, 1, Some(0)));
        }
        Some(_) => fields.refuse("messages", Rule::Is(Form::List)),
    }
    fields.finish()?;
    Ok((topic_id, items(value, "messages").len()))
}

/// The messages of a body whose publishes have the right form.
fn messages(body: &Bytes, topic_ids: Vec<String>) -> Result<Publishes, Error> {
    /// The texts of the messages, which must reach Postgres as they came.
    #[derive(Deserialize)]
    struct Texts<'a> {
        #[serde(borrow, default)]
        publishes: Option<Vec<HashMap<String, &'a RawValue>>>,
    }

    let texts: Texts<'_> = serde_json::from_slice(body).map_err(|error| {
        // such as publishes that are there twice
        Error::fault(vec!["publishes".into()], Rule::Refused(error.to_string()))
    })?;
    let mut faults = Vec::new();
    let mut read = Publishes::default();
    let texts = texts.publishes.unwrap_or_default();
    for (position, (topic_id, texts)) in topic_ids.into_iter().zip(texts).enumerate() {
        if faults.len() >= MAX_FAULTS {
            break;
        }
        let Some(list) = texts.get("messages") else {
            continue;
        };
        let path = ["publishes".into(), position.into(), "messages".into()];
        match outgoing::read(body, list, &path) {
            Ok(publication) => {
                read.topic_ids.push(topic_id);
                read.publications.push(publication);
            }
            Err(Error::Invalid(found)) => faults.extend(found),
            Err(error) => return Err(error),
        }
    }
    if faults.is_empty() {
        Ok(read)
    } else {
        faults.truncate(MAX_FAULTS);
        Err(Error::Invalid(faults))
    }
}

/// What a part of the body gives; its faults are noted with the place of the part. Once there are as many
/// as an answer lists, no part is looked at.
fn within<T>(
    place: &[Step],
    faults: &mut Vec<Fault>,
    parse: impl FnOnce() -> Result<T, Error>,
) -> Option<T> {
    if faults.len() >= MAX_FAULTS {
        return None;
    }
    match parse() {
        Ok(parsed) => Some(parsed),
        Err(Error::Invalid(inner)) => {
            faults.extend(inner.into_iter().map(|fault| fault.within(place)));
            None
        }
        Err(_) => None,
    }
}

/// The refusal of stale leases, which the engine names by position, with their receipts.
fn named(error: Error, given: &[String]) -> Error {
    let Error::Conflict { message, about } = error else {
        return error;
    };
    let receipt = |stale: &Value| {
        let position = usize::try_from(stale.get("position")?.as_u64()?).ok()?;
        given.get(position).map(|receipt| json!(receipt))
    };
    let about = about.iter().filter_map(receipt).collect();
    Error::Conflict { message, about }
}
