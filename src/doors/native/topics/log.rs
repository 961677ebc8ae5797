//! `GET /topics/{id}/messages`: what a topic retains, whoever has received it.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::app::App;
use crate::auth::scopes::TopicsSubscribe;
use crate::db::Timestamp;
use crate::db::json::JsonText;
use crate::db::log::{self, LoggedMessage, Read};
use crate::doors::answers;
use crate::doors::caller::Caller;
use crate::doors::extract::{PathId, QueryPairs};
use crate::doors::fields::Fields;
use crate::doors::native::attributes::Attributes;
use crate::doors::native::openapi::{CommonErrors, NotFound};
use crate::doors::native::times;
use crate::engine::message::ORDERING_KEY_MAX_LENGTH;
use crate::error::{Count, Error, Rule};

/// Most messages of a page.
const MOST: i32 = 1000;
/// Most ordering keys of a request.
const MOST_KEYS: usize = 100;
const ORDERING_KEY: &str = "ordering_key";

/// A message that its topic retains.
#[derive(Serialize, ToSchema)]
pub struct RetainedMessage {
    /// Its id, a UUIDv7 that increases in publish order.
    id: Uuid,
    /// The topic.
    topic_id: String,
    /// What was published.
    #[schema(value_type = Object)]
    payload: JsonText,
    /// When it was published.
    created_at: Timestamp,
    /// Its attributes, each a string.
    #[schema(value_type = HashMap<String, String>)]
    attributes: Attributes,
    /// Its ordering key, if it has one.
    #[schema(required = true)]
    ordering_key: Option<String>,
    /// Its priority, 0 to 9.
    priority: i16,
    /// When it can no longer be consumed; null: it does not expire by itself.
    #[schema(required = true)]
    expires_at: Option<Timestamp>,
}

/// A page of what a topic retains.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the schema only; messages are answered one by one"
)]
pub struct RetainedMessageList {
    /// Where to go on: the `after` of the next page. That of this one where it is empty.
    #[schema(required = true)]
    next: Option<Uuid>,
    /// In publish order. Empty: the end.
    data: Vec<RetainedMessage>,
}

/// Where a page is.
#[derive(Serialize)]
struct Place {
    next: Option<Uuid>,
}

/// Which messages to read.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub struct ReadParams {
    /// Only messages after the one of this id, `next` of the page before. It need not be there any more.
    after: Option<Uuid>,
    /// Only messages published at or after this time, to the millisecond.
    since: Option<DateTime<Utc>>,
    /// Only messages of this ordering key, or of these, up to 100: it may be given more than once.
    ordering_key: Option<Vec<String>>,
    /// How many messages to return.
    #[param(minimum = 1, maximum = 1000, default = 10)]
    limit: Option<i32>,
    /// End before anything below which an open transaction may still publish, some 10 seconds back: who reads on
    /// from `next` misses nothing.
    #[param(default = false)]
    complete: Option<bool>,
}

/// Read what a topic retains
///
/// In publish order, delivered or not, without a subscription; nothing is leased or settled. Messages that have
/// expired, or wait for their time, are left out. A page may have fewer messages than `limit`: only an empty one
/// is the end.
#[utoipa::path(get, path = "/topics/{id}/messages", tag = "topics",
    params(("id" = String, Path), ReadParams),
    responses((status = 200, body = RetainedMessageList), NotFound, CommonErrors))]
pub async fn read_messages(
    _: Caller<TopicsSubscribe>,
    State(app): State<App>,
    PathId(id): PathId,
    QueryPairs(pairs): QueryPairs,
) -> Result<Response, Error> {
    let asked = Asked::parse(pairs)?;
    let share = answers::share(&app).await?;
    let read = Read {
        after: asked.after,
        since: asked.since,
        ordering_keys: asked.ordering_keys.as_deref(),
        limit: asked.limit,
        max_bytes: app.settings.api_max_answer_bytes,
        complete: asked.complete,
    };
    let messages = log::read(&app.database, &id, &read).await?;
    let last = messages.last().map(|message| message.message_id);
    let next = last.or(asked.after);
    answers::page(
        answers::begin(&Place { next }, "data")?,
        messages,
        (share, LoggedMessage::size),
        move |message| shown(&id, message),
    )
}

/// What a request asks for.
struct Asked {
    after: Option<Uuid>,
    since: Option<DateTime<Utc>>,
    ordering_keys: Option<Vec<String>>,
    limit: i32,
    complete: bool,
}

impl Asked {
    fn parse(pairs: Vec<(String, String)>) -> Result<Self, Error> {
        let (keys, others): (Vec<_>, Vec<_>) = pairs
            .into_iter()
            .partition(|(name, _)| name == ORDERING_KEY);
        let keys: BTreeSet<String> = keys.into_iter().map(|(_, key)| key).collect();
        let query: Map<String, Value> = others
            .into_iter()
            .map(|(name, value)| (name, json!(value)))
            .collect();
        let mut fields = Fields::of_query(&query);
        let after = fields.optional("after").is_some();
        let after = after.then(|| fields.uuid("after"));
        let since = times::optional(&mut fields, "since");
        let limit = fields.int("limit", 10, 1, MOST);
        let complete = fields.boolean("complete").unwrap_or_default();
        if keys.len() > MOST_KEYS {
            let rule = Rule::AtMost(Count::Items, MOST_KEYS, Some(keys.len()));
            fields.refuse(ORDERING_KEY, rule);
        }
        fields.finish()?;
        for key in &keys {
            let query = Map::from_iter([(ORDERING_KEY.to_owned(), json!(key))]);
            let mut fields = Fields::of_query(&query);
            fields.text(ORDERING_KEY, 1, ORDERING_KEY_MAX_LENGTH);
            fields.finish()?;
        }
        Ok(Self {
            after,
            since,
            ordering_keys: (!keys.is_empty()).then(|| keys.into_iter().collect()),
            limit,
            complete,
        })
    }
}

fn shown(topic_id: &str, message: LoggedMessage) -> RetainedMessage {
    RetainedMessage {
        id: message.message_id,
        topic_id: topic_id.to_owned(),
        payload: message.payload,
        created_at: message.published_at,
        attributes: Attributes(message.attributes),
        ordering_key: message.ordering_key,
        priority: message.priority.unwrap_or(0),
        expires_at: message.expires_at,
    }
}
