//! Long polling: the next messages as the answer to a request.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::caller::{Called, Refused};
use super::history::{self, History};
use super::hub::Attached;
use super::message::{Message, Topic};
use super::names::{self, NAME_MAX_LENGTH, message_id, parse_message_id};
use super::openapi::Errors;
use super::protocol::MOST_TOPICS;
use super::session::shown;
use crate::app::App;
use crate::auth::scopes::PulsarSubscribe;
use crate::doors::extract::QueryValues;
use crate::doors::fields::Fields;
use crate::error::{Count, Error, Rule};
use crate::telemetry::proxy;

/// What to wait for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub(super) struct PollParams {
    /// Up to 50 topics, separated by commas.
    #[param(example = "orders,mails")]
    topics: String,
    /// `next` of the answer before; without it, only messages from now on.
    after: Option<String>,
    /// How long to wait for the first message, in seconds.
    #[param(minimum = 0, maximum = 30, default = 25)]
    timeout: Option<i32>,
    /// Most messages.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i32>,
    /// What the client calls itself.
    #[param(min_length = 1, max_length = 255)]
    client_id: Option<String>,
}

/// The next messages.
#[derive(Serialize, ToSchema)]
pub(super) struct Polled {
    /// The oldest first; none where none came in time.
    messages: Vec<PolledMessage>,
    /// What to pass as `after` to get those after them.
    #[schema(required = true)]
    next: Option<String>,
}

/// A message.
#[derive(Serialize, ToSchema)]
pub(super) struct PolledMessage {
    /// What it is called.
    message_id: String,
    /// Its topic.
    topic: String,
    /// What was sent.
    #[schema(value_type = Object)]
    payload: Value,
    /// When it was accepted.
    timestamp: String,
    /// Texts by name, if there are any.
    #[schema(required = true, value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// Wait for messages
#[utoipa::path(get, path = "/api/v1/messages/poll", tag = "messages", params(PollParams),
    responses((status = 200, body = Polled), Errors))]
pub(super) async fn poll(
    called: Called,
    State(app): State<App>,
    QueryValues(query): QueryValues,
) -> Result<Response, Refused> {
    called.caller.allow_some::<PulsarSubscribe>()?;
    let asked = Asked::parse(&query)?;
    let topics = || asked.topics.iter().map(String::as_str);
    called.caller.allow::<PulsarSubscribe>(topics())?;
    let until = Instant::now() + asked.timeout;
    let after = match asked.after {
        Some(after) => after,
        // from now on: after the newest, where there is any
        None => {
            let now = History::new(asked.topics.clone(), None).look(&app).await?;
            now.unwrap_or_default()
        }
    };
    let mut attached = called.door.hub.attach(&app, &called.guest).await?;
    let (_, taken) = attached.add(&asked.topics);
    let there = history::there(&app, &asked.topics, taken).await?;
    let mut messages = earlier(&app, &called, &asked, after).await?;
    if messages.is_empty() {
        let waiting = wait(&attached, &asked, (after, &there), until);
        messages = tokio::select! {
            messages = waiting => messages?,
            () = called.guest.drained() => Vec::new(),
        };
        // who lost it meanwhile gets nothing
        let caller = called.caller.again(&app).await?;
        caller.allow::<PulsarSubscribe>(topics())?;
    }
    // if there was nothing, the next one begins where this one did
    Ok(answer(&messages, after))
}

type Messages = Vec<std::sync::Arc<Message>>;

/// What was accepted after a message.
async fn earlier(
    app: &App,
    called: &Called,
    asked: &Asked,
    after: Uuid,
) -> Result<Messages, Error> {
    let _place = called.door.pages.acquire().await;
    let mut history = History::new(asked.topics.clone(), Some(after));
    history.look(app).await?;
    let read = history.page_of(app, asked.limit).await?;
    let topic = |name: &Option<String>| Topic::new(name.as_deref().unwrap_or_default()).into();
    let shown = |one| shown(one, topic(&one.ordering_key), false).into();
    Ok(read.iter().map(shown).collect())
}

/// What comes until a time, as soon as there is any.
async fn wait(
    attached: &Attached,
    asked: &Asked,
    (after, there): (Uuid, &HashSet<Uuid>),
    until: Instant,
) -> Result<Messages, Error> {
    let lost = |_| Error::refused(503, "messages may have been missed; ask again");
    loop {
        let Ok(first) = timeout_at(until, attached.listener.next()).await else {
            return Ok(Vec::new());
        };
        let mut messages = first.map_err(lost)?;
        loop {
            let more = attached.listener.take(asked.most()).map_err(lost)?;
            if more.is_empty() {
                break;
            }
            messages.extend(more);
        }
        // one poll may have read it before it came here
        messages.retain(|message| message.id > after && !there.contains(&message.id));
        messages.sort_by_key(|message| message.id);
        messages.truncate(asked.most());
        if !messages.is_empty() {
            return Ok(messages);
        }
    }
}

fn answer(messages: &Messages, nothing: Uuid) -> Response {
    let objects: Vec<String> = messages.iter().map(|message| message.object()).collect();
    for message in messages {
        proxy::delivered(&message.topic.name, proxy::Delivery::LongPoll).increment(1);
    }
    let next = messages.last().map_or(nothing, |last| last.id);
    let body = format!(
        r#"{{"messages":[{}],"next":{}}}"#,
        objects.join(","),
        json!(message_id(next))
    );
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// What a request asks for.
struct Asked {
    topics: Vec<String>,
    after: Option<Uuid>,
    timeout: Duration,
    limit: i32,
}

impl Asked {
    fn most(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(1)
    }

    fn parse(query: &Map<String, Value>) -> Result<Self, Error> {
        let mut fields = Fields::of_query(query);
        let topics = fields.text("topics", 1, usize::MAX);
        let topics: Vec<String> = topics.split(',').map(str::to_owned).collect();
        let wrong = if topics.len() > MOST_TOPICS {
            Some(Rule::AtMost(Count::Items, MOST_TOPICS, Some(topics.len())))
        } else {
            topics.iter().find_map(|topic| names::fault(topic))
        };
        if let Some(rule) = wrong.filter(|_| query.contains_key("topics")) {
            fields.refuse("topics", rule);
        }
        let after = fields.optional("after").map(|value| {
            let id = value.as_str().and_then(parse_message_id);
            if id.is_none() {
                fields.refuse_as("after", "after must be a message_id");
            }
            id.unwrap_or_default()
        });
        let timeout = fields.integer("timeout", 25, 0, 30);
        let limit = fields.int("limit", 100, 1, 1000);
        if fields.optional("client_id").is_some() {
            fields.text("client_id", 1, NAME_MAX_LENGTH);
        }
        fields.finish_ignoring_others()?;
        Ok(Self {
            topics,
            after,
            timeout: Duration::from_secs(timeout.try_into().unwrap_or_default()),
            limit,
        })
    }
}
