//! Messages as they come: Server-Sent Events, or a WebSocket.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;

use super::auth::Caller;
use super::caller::Allowed;
use super::names::{self, Kind};
use super::openapi::{Errors, NotFound};
use super::pull::{CONSUMER, note_delivered, pull_from_all};
use super::settle::{self, Settled};
use super::subscriptions;
use super::tags::Tagged;
use super::view::{self, Pulled};
use crate::app::App;
use crate::auth::scopes::BrokerConsume;
use crate::db;
use crate::db::messages::{Claim, Delivery, Handle};
use crate::db::settlements::Action;
use crate::doors::connection::Guest;
use crate::doors::extract::QueryValues;
use crate::doors::feed::Feed;
use crate::doors::fields::{Fields, TEXT_MAX_LENGTH};
use crate::doors::stream::{Change, Reply, Source, Upgrade, WAIT};
use crate::doors::tree::parse_json;
use crate::doors::{events, frames};
use crate::engine::{Attendance, Claimed};
use crate::error::{Error, found};

/// How to stream.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub(super) struct StreamParams {
    /// Whether messages are acked once they are handed over: by default of events, not of a WebSocket.
    auto_ack: Option<bool>,
    /// Most messages that are sent and not settled.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    max_in_flight: Option<i32>,
}

/// How to stream a topic.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub(super) struct TopicStreamParams {
    /// Of which subscription; without it, of all that the topic has.
    subscription_id: Option<String>,
    /// Whether messages are acked once they are handed over: by default of events, not of a WebSocket.
    auto_ack: Option<bool>,
    /// Most messages that are sent and not settled.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    max_in_flight: Option<i32>,
}

/// Messages of a queue as they come, as Server-Sent Events or, with an upgrade, on a WebSocket
///
/// Each event is what a pull answers. On a WebSocket, `{"type": "ack" | "nack", "delivery_tag", "requeue"?}`
/// settles and is answered by `{"type": "result", "delivery_tag", "status"}`. What is unsettled when the
/// connection ends is available at once.
#[utoipa::path(get, path = "/queues/{name}/stream", tag = "queues",
    params(("name" = String, Path), StreamParams),
    responses((status = 200, body = String, content_type = "text/event-stream"),
        (status = 101, description = "A WebSocket"), NotFound, Errors))]
pub(super) async fn stream_queue(
    Allowed { name, caller, .. }: Allowed<BrokerConsume>,
    State(app): State<App>,
    Extension(guest): Extension<Guest>,
    QueryValues(query): QueryValues,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, Error> {
    let asked = Asked::parse(&query, &headers, false)?;
    let id = Kind::Queue.id(&name);
    let queue = db::subscriptions::get(&app.database, &id).await;
    Kind::Queue.known(&name, queue)?;
    let of = Of {
        app,
        caller,
        kind: Kind::Queue,
        name,
        id: Some(id),
        guest,
        auto_ack: asked.auto_ack,
        attendance: Mutex::default(),
    };
    begin(of, &asked, upgrade)
}

/// Messages of a topic as they come, as Server-Sent Events or, with an upgrade, on a WebSocket
///
/// As of a queue.
#[utoipa::path(get, path = "/topics/{name}/stream", tag = "topics",
    params(("name" = String, Path), TopicStreamParams),
    responses((status = 200, body = String, content_type = "text/event-stream"),
        (status = 101, description = "A WebSocket"), NotFound, Errors))]
pub(super) async fn stream_topic(
    Allowed { name, caller, .. }: Allowed<BrokerConsume>,
    State(app): State<App>,
    Extension(guest): Extension<Guest>,
    QueryValues(query): QueryValues,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, Error> {
    let asked = Asked::parse(&query, &headers, true)?;
    let id = match &asked.subscription_id {
        None => {
            subscriptions::ids(&app, &name).await?;
            None
        }
        Some(subscription_id) => {
            let id = names::subscription(&name, subscription_id);
            let there = found(db::subscriptions::get(&app.database, &id).await)?;
            there.ok_or_else(|| subscriptions::unknown(&name, subscription_id))?;
            Some(id)
        }
    };
    let of = Of {
        app,
        caller,
        kind: Kind::Topic,
        name,
        id,
        guest,
        auto_ack: asked.auto_ack,
        attendance: Mutex::default(),
    };
    begin(of, &asked, upgrade)
}

/// What a request asks for.
struct Asked {
    is_upgrade: bool,
    auto_ack: bool,
    max_in_flight: usize,
    subscription_id: Option<String>,
}

impl Asked {
    fn parse(
        query: &Map<String, Value>,
        headers: &HeaderMap,
        of_topic: bool,
    ) -> Result<Self, Error> {
        let is_upgrade = headers.contains_key(header::UPGRADE);
        let mut fields = Fields::of_query(query);
        let auto_ack = fields.boolean("auto_ack").unwrap_or(!is_upgrade);
        let max_in_flight = fields.int("max_in_flight", 100, 1, 1000);
        let subscription_id = of_topic
            .then(|| fields.optional("subscription_id"))
            .flatten()
            .map(|_| fields.text("subscription_id", 1, TEXT_MAX_LENGTH));
        fields.finish()?;
        Ok(Self {
            is_upgrade,
            auto_ack,
            max_in_flight: usize::try_from(max_in_flight).unwrap_or(1),
            subscription_id,
        })
    }
}

/// What is streamed, and to whom.
struct Of {
    app: App,
    caller: Caller,
    kind: Kind,
    name: String,
    /// The subscription of the engine; none for all of a topic.
    id: Option<String>,
    guest: Guest,
    auto_ack: bool,
    /// Of what it pulls from, also while the client holds all it may, or takes nothing.
    attendance: Mutex<Option<Attendance>>,
}

impl Of {
    /// Be there for what it pulls from now, and no more for what it pulled from before.
    fn attend(&self, ids: &[String]) {
        let attendance = self.app.engine.attend(ids.to_vec());
        let mut last = self
            .attendance
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(attendance);
    }

    fn shown(&self, delivery: Delivery) -> Pulled {
        let label = view::label(self.kind, &self.name);
        note_delivered(&label, delivery.attempts, self.auto_ack);
        let named = delivery.subscription_id.clone();
        let id = named.unwrap_or_else(|| self.subscription_id().to_owned());
        Pulled::of(&id, delivery)
    }
}

impl Source for Of {
    async fn pull(&self, room: i32) -> Result<Claimed, Error> {
        let Self {
            app, caller, name, ..
        } = self;
        caller.check::<BrokerConsume>(app, name).await?;
        let claim = Claim {
            consumer_id: CONSUMER.to_owned(),
            batch_size: room,
            ack_deadline_seconds: Some(app.settings.broker.visibility_timeout_sec),
            only: None,
            auto_ack: false,
        };
        let attend = |ids: &[String]| self.attend(ids);
        let Some(id) = self.id.clone() else {
            let from = (name.as_str(), caller, attend);
            return pull_from_all((app, &app.streams), &self.guest, from, &claim, WAIT).await;
        };
        attend(std::slice::from_ref(&id));
        app.streams.pull(id, claim, WAIT, || self.allowed()).await
    }

    async fn allowed(&self) -> Result<(), Error> {
        let Self {
            app, caller, name, ..
        } = self;
        caller.check::<BrokerConsume>(app, name).await
    }

    fn subscription_id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    fn event(&self, delivery: Delivery) -> Result<(String, String), Error> {
        let id = delivery.message_id.to_string();
        Ok((id, text(&self.shown(delivery))?))
    }

    fn frame(&self, delivery: Delivery) -> Result<String, Error> {
        text(&self.shown(delivery))
    }

    fn failure(&self, error: &Error, is_frame: bool) -> String {
        let error = said(error);
        if is_frame {
            json!({"type": "error", "error": error}).to_string()
        } else {
            json!({"error": error}).to_string()
        }
    }

    /// Answer a frame of a client.
    async fn reply(&self, frame: String) -> Reply {
        let mut tag = String::new();
        let settled = match Frame::parse(&frame) {
            Ok(frame) => {
                tag = frame.tag;
                settle::settle(&self.app, &self.name, &tag, frame.action).await
            }
            Err(error) => Err(error),
        };
        let result = |status| json!({"type": "result", "delivery_tag": tag, "status": status});
        let (told, is_over) = match settled {
            Ok(Settled { status }) => (result(status), true),
            Err(Error::Refused { status: 404, .. }) => (result("unknown"), true),
            Err(error) => {
                let error = said(&error);
                let told = json!({"type": "error", "delivery_tag": tag, "error": error});
                (told, false)
            }
        };
        let tagged = Tagged::parse(&tag).filter(|_| is_over);
        Reply {
            text: told.to_string(),
            change: tagged.map_or(Change::Nothing, |tagged| {
                let handle = Handle {
                    message_id: tagged.message_id,
                    lease: Some(tagged.lease),
                };
                Change::Settled(tagged.subscription_id, handle)
            }),
        }
    }
}

fn text(pulled: &Pulled) -> Result<String, Error> {
    serde_json::to_string(pulled).map_err(|error| Error::Internal(Arc::new(error)))
}

fn said(error: &Error) -> String {
    super::openapi::ErrorBody::of(error).error
}

/// A frame of a client.
struct Frame {
    tag: String,
    action: Action,
}

impl Frame {
    fn parse(text: &str) -> Result<Self, Error> {
        let body = parse_json(text.as_bytes())?;
        let mut fields = Fields::of_body(&body)?;
        let kind = fields.text("type", 0, TEXT_MAX_LENGTH);
        let tag = fields.text("delivery_tag", 0, settle::TAG_MAX_LENGTH);
        let action = match kind.as_str() {
            "nack" => settle::nack_of(&mut fields),
            _ => Action::Ack,
        };
        if !["ack", "nack"].contains(&kind.as_str()) {
            fields.refuse_as("type", "type must be ack or nack");
        }
        fields.finish()?;
        Ok(Self { tag, action })
    }
}

fn begin(of: Of, asked: &Asked, upgrade: Upgrade) -> Result<Response, Error> {
    let guest = of.guest.clone();
    let feed = Feed::new(of.app.clone(), asked.max_in_flight, asked.auto_ack);
    if asked.is_upgrade {
        frames::answer(upgrade, feed, guest, of)
    } else {
        Ok(events::answer(feed, guest, of))
    }
}
