//! `/subscriptions/{id}/stream` and `/subscriptions/{id}/ws`: messages as they come.

mod frames;

use std::sync::Arc;

use axum::extract::{Extension, FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::IntoParams;

use crate::app::App;
use crate::auth::scopes::SubscriptionsConsume;
use crate::db;
use crate::db::messages::{Claim, Delivery};
use crate::doors::caller::{Caller, Presented};
use crate::doors::connection::Guest;
use crate::doors::extract::{PathId, QueryValues};
use crate::doors::feed::Feed;
use crate::doors::fields::{Fields, TEXT_MAX_LENGTH};
use crate::doors::native::messages::pull::{PulledMessage, pulled};
use crate::doors::native::openapi::{CommonErrors, NoSocket, NotFound};
use crate::doors::receipts::receipt;
use crate::doors::stream::{Reply, Source, Upgrade, WAIT};
use crate::doors::{cors, events, fastapi};
use crate::engine::{Attendance, Claimed};
use crate::error::Error;

/// How to stream.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub struct StreamParams {
    /// Who consumes, for people who look for a stuck message.
    #[param(min_length = 1, max_length = 1024, default = "stream")]
    consumer_id: Option<String>,
    /// Most messages that are sent and not settled.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    max_in_flight: Option<i32>,
    /// Ack each message once the connection took it: what the client did not get or could not handle is lost.
    #[param(default = false)]
    auto_ack: Option<bool>,
    /// For how long to lease the messages, in seconds; by default as the subscription says.
    #[param(minimum = 1, maximum = 43200)]
    ack_deadline_seconds: Option<i32>,
    /// A token, for browsers, which cannot set a header here. It stands in the logs of proxies and in the
    /// history of browsers: make it one that ends soon and has this one scope. No API key.
    access_token: Option<String>,
}

/// How to stream on a WebSocket, beside how to stream.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub struct SocketParams {
    /// Send so many messages, and then only as many as frames of the type `credit` allow. Without it, only
    /// `max_in_flight` holds.
    #[param(minimum = 0, maximum = 1000000)]
    credit: Option<i32>,
}

/// Stream messages as Server-Sent Events
///
/// Each message is an event `message` whose `id` is its receipt and whose data is what a pull answers. They are
/// settled with `/settle`, on any connection. What is not settled when the client goes is given back at once, and
/// that delivery is not counted. A comment comes after 15 seconds without a message. An event `error` tells why
/// a stream ends before its client does. `Last-Event-ID` changes nothing.
#[utoipa::path(get, path = "/subscriptions/{id}/stream", tag = "messages",
    params(("id" = String, Path), StreamParams),
    responses((status = 200, description = "Events until the client goes", body = String,
        content_type = "text/event-stream"), NotFound, CommonErrors))]
pub async fn stream_messages(
    _: Caller<SubscriptionsConsume>,
    token: Presented,
    State(app): State<App>,
    PathId(id): PathId,
    Extension(guest): Extension<Guest>,
    QueryValues(query): QueryValues,
) -> Result<Response, Error> {
    let (feed, of) = Of::begin(app, token, id, Asked::parse(&query, false)?).await?;
    Ok(events::answer(feed, guest, of))
}

/// Stream messages on a WebSocket
///
/// Each message is a frame `{"type": "message", ...}` with what a pull answers. The client sends
/// `{"type": "ack", "receipt"}`, `{"type": "nack", "receipt", "delay_seconds"?, "reason"?}`,
/// `{"type": "reject", "receipt", "reason"?}`, `{"type": "extend", "receipt", "seconds"}` or
/// `{"type": "credit", "messages"}`; each is answered by `{"type": "result", "receipt"?, "status", ...}` or
/// `{"type": "error", "receipt"?, "detail"}`. What is not settled when the client goes is given back at once,
/// and that delivery is not counted. Closes with 1001 when the server ends, with 1008 when the client may no
/// more, with 1013 when it does not read or should come back later.
#[utoipa::path(get, path = "/subscriptions/{id}/ws", tag = "messages",
    params(("id" = String, Path), StreamParams, SocketParams),
    responses((status = 101, description = "A WebSocket"), NoSocket, NotFound, CommonErrors))]
pub async fn stream_on_socket(
    _: Caller<SubscriptionsConsume>,
    token: Presented,
    State(app): State<App>,
    PathId(id): PathId,
    Extension(guest): Extension<Guest>,
    QueryValues(query): QueryValues,
    LetIn(upgrade): LetIn,
) -> Result<Response, Error> {
    let (feed, of) = Of::begin(app, token, id, Asked::parse(&query, true)?).await?;
    crate::doors::frames::answer(upgrade, feed, guest, of)
}

/// What asks for a WebSocket, and is no page of an origin that may not.
pub struct LetIn(Upgrade);

impl FromRequestParts<App> for LetIn {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        if !cors::lets_in(app.settings.api_cors_origins.as_ref(), &parts.headers) {
            let text = "Pages of this origin may not connect (FASTPUBSUB_API_CORS_ORIGINS)";
            return Err(Error::Forbidden {
                message: text.to_owned(),
                needed: None,
            });
        }
        // never refused: what is wrong is told after what else is
        let upgrade = Upgrade::from_request_parts(parts, app).await;
        Ok(Self(upgrade.unwrap_or_else(|never| match never {})))
    }
}

/// What a request asks for.
struct Asked {
    consumer_id: String,
    max_in_flight: usize,
    auto_ack: bool,
    ack_deadline_seconds: Option<i32>,
    credit: Option<usize>,
}

impl Asked {
    fn parse(query: &Map<String, Value>, is_socket: bool) -> Result<Self, Error> {
        let mut fields = Fields::of_query(query);
        let consumer_id = fields.optional("consumer_id");
        let consumer_id = consumer_id.map(|_| fields.text("consumer_id", 1, TEXT_MAX_LENGTH));
        let max_in_flight = fields.int("max_in_flight", 100, 1, 1000);
        let auto_ack = fields.boolean("auto_ack").unwrap_or_default();
        let seconds = fields.optional("ack_deadline_seconds");
        let seconds = seconds.map(|_| fields.int("ack_deadline_seconds", 1, 1, 43200));
        let credit = fields.optional("credit").filter(|_| is_socket);
        let credit = credit.map(|_| fields.int("credit", 0, 0, frames::MOST_CREDIT));
        fields.finish()?;
        Ok(Self {
            consumer_id: consumer_id.unwrap_or_else(|| "stream".to_owned()),
            max_in_flight: usize::try_from(max_in_flight).unwrap_or(1),
            auto_ack,
            ack_deadline_seconds: seconds,
            credit: credit.and_then(|credit| usize::try_from(credit).ok()),
        })
    }
}

/// What is streamed, and to whom.
struct Of {
    app: App,
    token: Presented,
    id: String,
    asked: Asked,
    /// Also while the client holds all it may, or takes nothing.
    _attendance: Attendance,
}

impl Of {
    /// Of a subscription that there is.
    async fn begin(
        app: App,
        token: Presented,
        id: String,
        asked: Asked,
    ) -> Result<(Feed, Self), Error> {
        db::subscriptions::get(&app.database, &id).await?;
        let feed = Feed::new(app.clone(), asked.max_in_flight, asked.auto_ack);
        let feed = feed.with_credit(asked.credit);
        let of = Self {
            _attendance: app.engine.attend(vec![id.clone()]),
            app,
            token,
            id,
            asked,
        };
        Ok((feed, of))
    }
}

/// A message as a frame.
#[derive(Serialize)]
#[serde(tag = "type", rename = "message")]
struct Framed {
    #[serde(flatten)]
    message: PulledMessage,
}

impl Source for Of {
    async fn pull(&self, room: i32) -> Result<Claimed, Error> {
        // it may have been full for long
        self.allowed().await?;
        let claim = Claim {
            consumer_id: self.asked.consumer_id.clone(),
            batch_size: room,
            ack_deadline_seconds: self.asked.ack_deadline_seconds,
            only: None,
            auto_ack: false,
        };
        let streams = &self.app.streams;
        streams
            .pull(self.id.clone(), claim, WAIT, || self.allowed())
            .await
    }

    async fn allowed(&self) -> Result<(), Error> {
        let Self { app, token, id, .. } = self;
        token.check::<SubscriptionsConsume>(app, id).await
    }

    fn subscription_id(&self) -> &str {
        &self.id
    }

    fn event(&self, delivery: Delivery) -> Result<(String, String), Error> {
        let lease = delivery.lease.unwrap_or_default();
        let id = receipt(delivery.message_id, lease);
        Ok((id, text(&pulled(&self.id, delivery))?))
    }

    fn frame(&self, delivery: Delivery) -> Result<String, Error> {
        let message = pulled(&self.id, delivery);
        text(&Framed { message })
    }

    fn failure(&self, error: &Error, is_frame: bool) -> String {
        let mut body = fastapi::body(error);
        if is_frame && let Some(fields) = body.as_object_mut() {
            fields.insert("type".to_owned(), "error".into());
        }
        body.to_string()
    }

    async fn reply(&self, frame: String) -> Reply {
        frames::reply(&self.app, &self.id, &frame, self.asked.credit.is_some()).await
    }
}

fn text(shown: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(shown).map_err(|error| Error::Internal(Arc::new(error)))
}
