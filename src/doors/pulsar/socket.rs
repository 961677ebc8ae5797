//! WebSockets: the first frame subscribes, and everything that is accepted follows.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::SinkExt;
use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use utoipa::IntoParams;
use uuid::Uuid;

use super::Door;
use super::caller::{self, Caller};
use super::listener::End;
use super::openapi::Errors;
use super::protocol::{self, Code, Fault, Said, Subscribe, told};
use super::session::{Batch, Ended, Session};
use crate::app::App;
use crate::auth::scopes::PulsarSubscribe;
use crate::doors::connection::Guest;
use crate::doors::extract::query_pairs;
use crate::error::Error;
use crate::telemetry::proxy::{self, Open};

/// Longest frame of a client: 50 topics of 255 characters, and a token, all of it escaped.
const FRAME_MAX_BYTES: usize = 256 * 1024;
/// Each connection has one of its own.
const READ_BUFFER: usize = 4 * 1024;
/// For the first frame.
const FIRST_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether the client may still be there, and a ping sent.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(15);
/// For a client that takes nothing, or says nothing.
const SILENT: Duration = Duration::from_secs(60);
/// For the last frames.
const LAST_WITHIN: Duration = Duration::from_secs(10);
/// Most topics of a connection.
const MOST_TOPICS: usize = 1000;

/// How to subscribe.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub(super) struct SocketParams {
    /// For clients that can neither set the header `Authorization` nor send it in the first frame.
    token: Option<String>,
}

/// Receive messages on a WebSocket
///
/// The first frame is `{"type": "subscribe", "topics": [...], "client_id": "...", "offset"?, "token"?}`.
#[utoipa::path(get, path = "/ws", tag = "messages", params(SocketParams),
    responses((status = 101, description = "A WebSocket"), Errors))]
pub(super) async fn socket(
    State(app): State<App>,
    Extension(guest): Extension<Guest>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Result<Response, Error> {
    let upgrade = upgrade.map_err(|refused| Error::refused(400, refused.body_text()))?;
    let shown = shown(&app, request)?;
    let door = Door::of(&app);
    let upgrade = upgrade
        .max_message_size(FRAME_MAX_BYTES)
        .max_frame_size(FRAME_MAX_BYTES)
        .read_buffer_size(READ_BUFFER);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let mut connection = Connection {
            socket,
            app,
            door,
            guest,
        };
        connection.serve(shown).await;
    }))
}

/// What a request shows, if anybody has to show anything.
fn shown(app: &App, request: Request) -> Result<Shown, Error> {
    if caller::is_open(app) {
        return Ok(Ok(None));
    }
    let (parts, _) = request.into_parts();
    let in_header = caller::shown(&parts).map(|token| token.map(str::to_owned));
    if !matches!(in_header, Ok(None)) {
        return Ok(in_header);
    }
    let pairs = query_pairs(&parts.uri)?;
    let token = pairs.into_iter().rfind(|(name, _)| name == "token");
    Ok(Ok(token.map(|(_, token)| token)))
}

type Shown = Result<Option<String>, Error>;

/// A connection.
struct Connection {
    socket: WebSocket,
    app: App,
    door: Arc<Door>,
    guest: Guest,
}

/// How a connection ends: the client is gone, or is told something and closed.
enum Close {
    Gone,
    With(Option<(Code, String)>, u16),
}

impl Close {
    fn refused(error: &Error) -> Self {
        match error.status() {
            401 | 403 => Self::With(Some((Code::Unauthorized, told(error))), close_code::POLICY),
            503 | 504 => Self::With(Some(failed(error)), close_code::AGAIN),
            _ => Self::With(Some(failed(error)), close_code::ERROR),
        }
    }
}

fn failed(error: &Error) -> (Code, String) {
    (
        Code::Subscription,
        format!("Failed to subscribe: {}", told(error)),
    )
}

impl Connection {
    async fn serve(&mut self, shown: Shown) {
        let most = self.app.settings.pulsar.max_connections_per_instance;
        let Some(_open) = Open::new(most) else {
            let text = "too many connections (FASTPUBSUB_PULSAR_MAX_CONNECTIONS_PER_INSTANCE)";
            let close = Close::With(Some((Code::Closed, text.to_owned())), close_code::AGAIN);
            return self.close(close).await;
        };
        let guest = self.guest.clone();
        let mut drained = pin!(guest.drained());
        let ended = match self.begin(shown, drained.as_mut()).await {
            Ok((caller, session)) => self.go_on(caller, session, drained).await,
            Err(close) => close,
        };
        self.close(ended).await;
    }

    /// Wait for the first frame, and subscribe.
    async fn begin(
        &mut self,
        shown: Shown,
        mut drained: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Result<(Caller, Session), Close> {
        let first = async {
            let first = timeout(FIRST_WITHIN, self.first()).await;
            first.unwrap_or_else(|_| Err(not_first("no subscribe came within 30 s")))
        };
        let subscribe = tokio::select! {
            first = first => first?,
            () = drained.as_mut() => return Err(drain()),
        };
        let shown = match &subscribe.token {
            Some(token) => Ok(Some(token.reveal().to_owned())),
            None => shown,
        };
        let caller = match shown {
            Ok(shown) => caller::identify(&self.app, shown.as_deref()).await,
            Err(error) => Err(error),
        };
        let caller = caller.map_err(|error| Close::refused(&error))?;
        let topics = subscribe.topics.iter().map(String::as_str);
        let allowed = caller.allow::<PulsarSubscribe>(topics);
        allowed.map_err(|error| Close::refused(&error))?;
        let attached = tokio::select! {
            attached = self.door.hub.attach(&self.app, &self.guest) => attached,
            () = drained => return Err(drain()),
        };
        let attached = attached.map_err(|error| Close::refused(&error))?;
        let mut session = Session::new(self.app.clone(), Arc::clone(&self.door), attached);
        self.subscribe(&mut session, &subscribe).await?;
        Ok((caller, session))
    }

    /// The first frame, which nobody may send too often.
    async fn first(&mut self) -> Result<Subscribe, Close> {
        loop {
            let text = match self.socket.recv().await {
                Some(Ok(Frame::Text(text))) => text,
                Some(Ok(Frame::Binary(_))) => return Err(not_first("it is binary")),
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => continue,
                Some(Ok(Frame::Close(_))) | None => return Err(Close::Gone),
                Some(Err(_)) => return Err(unreadable()),
            };
            if caller::count(&self.door, None, &self.guest, 1).is_err() {
                self.tell_error(Code::RateLimit, "too many frames").await?;
                continue;
            }
            return match protocol::parse(&text) {
                Ok(Said::Subscribe(subscribe)) => Ok(subscribe),
                Ok(_) | Err(Fault::Type(_)) => {
                    Err(not_first("the first frame must be a subscribe"))
                }
                Err(Fault::Form(text)) => Err(not_first(&text)),
            };
        }
    }

    async fn subscribe(
        &mut self,
        session: &mut Session,
        subscribe: &Subscribe,
    ) -> Result<(), Close> {
        let id = Uuid::new_v4().simple().to_string();
        let session_id = format!("sess_{}", id.get(..12).unwrap_or_default());
        tracing::debug!(
            client.id = %subscribe.client_id,
            session.id = %session_id,
            topics = subscribe.topics.len(),
            "subscribed"
        );
        // before it is told: what is accepted from then on comes
        let subscribing = session.subscribe(&subscribe.topics, subscribe.offset);
        subscribing.await.map_err(|error| Close::refused(&error))?;
        let text = protocol::subscribed(&subscribe.topics, &session_id);
        self.tell(text).await
    }

    /// Send what comes and answer what the client says, until the end.
    async fn go_on(
        &mut self,
        caller: Caller,
        mut session: Session,
        mut drained: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Close {
        let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut pinged) = (Instant::now(), Instant::now());
        let is_open = caller::is_open(&self.app);
        loop {
            let done = tokio::select! {
                batch = session.next() => match batch {
                    Ok(batch) => self.send(batch, &session).await,
                    Err(ended) => Err(close_of(&ended)),
                },
                frame = self.socket.recv() => {
                    heard = Instant::now();
                    match frame {
                        Some(Ok(Frame::Text(text))) => self.hear(&caller, &mut session, &text).await,
                        Some(Ok(Frame::Binary(_))) => {
                            self.tell_error(Code::Processing, "frames must be text").await
                        }
                        Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => Ok(()),
                        Some(Ok(Frame::Close(_))) | None => Err(Close::Gone),
                        Some(Err(_)) => Err(unreadable()),
                    }
                }
                _ = looks.tick() => {
                    session.tidy();
                    let allowed = if is_open { Ok(()) } else { may_stay(&self.app, &caller, &session).await };
                    match allowed {
                        _ if heard.elapsed() > SILENT => Err(Close::Gone),
                        Ok(()) if pinged.elapsed() >= PING_EVERY => {
                            pinged = Instant::now();
                            self.put(Frame::Ping(Bytes::new())).await
                        }
                        allowed => allowed,
                    }
                }
                () = drained.as_mut() => Err(drain()),
            };
            if let Err(close) = done {
                return close;
            }
        }
    }

    async fn hear(
        &mut self,
        caller: &Caller,
        session: &mut Session,
        text: &str,
    ) -> Result<(), Close> {
        let said = protocol::parse(text);
        if !matches!(said, Ok(Said::Ping)) && caller.count(&self.door, &self.guest, 1).is_err() {
            return self.tell_error(Code::RateLimit, "too many frames").await;
        }
        match said {
            Ok(Said::Ping) => self.tell(protocol::pong()).await,
            Ok(Said::Ack) => {
                proxy::acked();
                Ok(())
            }
            Ok(Said::Unsubscribe(topics)) => {
                session.attached.remove(&topics);
                self.tell(protocol::unsubscribed(&topics)).await
            }
            Ok(Said::Subscribe(subscribe)) => {
                if session.attached.count() + subscribe.topics.len() > MOST_TOPICS {
                    let text = format!("a connection has at most {MOST_TOPICS} topics");
                    return self.tell_error(Code::Processing, &text).await;
                }
                let caller = match &subscribe.token {
                    Some(token) => caller::identify(&self.app, Some(token.reveal())).await,
                    None => caller.again(&self.app).await,
                };
                let topics = subscribe.topics.iter().map(String::as_str);
                let allowed = caller.and_then(|caller| caller.allow::<PulsarSubscribe>(topics));
                allowed.map_err(|error| Close::refused(&error))?;
                self.subscribe(session, &subscribe).await
            }
            Err(Fault::Type(kind)) => {
                let text = format!("Unknown message type: {kind}");
                self.tell_error(Code::UnknownType, &text).await
            }
            Err(Fault::Form(text)) => self.tell_error(Code::Processing, &text).await,
        }
    }

    /// Send messages, unless the client falls too far behind meanwhile.
    async fn send(&mut self, batch: Batch, session: &Session) -> Result<(), Close> {
        let socket = &mut self.socket;
        let sending = async {
            for message in &batch.messages {
                socket.feed(Frame::Text(message.frame())).await?;
                message.was_sent();
            }
            socket.flush().await
        };
        tokio::select! {
            sent = timeout(SILENT, sending) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(Close::Gone),
            },
            end = session.attached.listener.ended() => Err(close_of(&Ended::Hub(end))),
        }
    }

    async fn tell(&mut self, text: String) -> Result<(), Close> {
        self.put(Frame::Text(text.into())).await
    }

    async fn tell_error(&mut self, code: Code, text: &str) -> Result<(), Close> {
        proxy::error("websocket", code.name());
        self.tell(protocol::error(code, text)).await
    }

    async fn put(&mut self, frame: Frame) -> Result<(), Close> {
        match timeout(SILENT, self.socket.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Close::Gone),
        }
    }

    async fn close(&mut self, close: Close) {
        let Close::With(error, code) = close else {
            // who says that it leaves is answered
            let _gone = timeout(LAST_WITHIN, self.socket.flush()).await;
            return;
        };
        let last = async {
            if let Some((code, text)) = error {
                self.tell_error(code, &text).await?;
            }
            let frame = CloseFrame {
                code,
                reason: "".into(),
            };
            self.put(Frame::Close(Some(frame))).await?;
            // until it has read that: what it sent and nobody reads would make it lose the end
            while let Some(Ok(_)) = self.socket.recv().await {}
            Ok::<_, Close>(())
        };
        let _gone = timeout(LAST_WITHIN, last).await;
    }
}

/// Whether the client still may have what it is subscribed to.
async fn may_stay(app: &App, caller: &Caller, session: &Session) -> Result<(), Close> {
    let allowed = match caller.again(app).await {
        Ok(caller) => caller.allow::<PulsarSubscribe>(session.attached.topics()),
        Err(error) => Err(error),
    };
    match allowed {
        // what cannot be found out now is asked again
        Err(error) if error.status() >= 500 => Ok(()),
        other => other.map_err(|error| Close::refused(&error)),
    }
}

/// What cannot be read is no frame, or too large.
fn unreadable() -> Close {
    Close::With(None, close_code::PROTOCOL)
}

fn drain() -> Close {
    Close::With(
        Some((Code::Closed, "the server ends".to_owned())),
        close_code::AWAY,
    )
}

fn not_first(text: &str) -> Close {
    let text = format!("Failed to subscribe: {text}");
    Close::With(Some((Code::Subscription, text)), close_code::POLICY)
}

fn close_of(ended: &Ended) -> Close {
    match ended {
        Ended::Hub(End::Behind) => {
            let text = "this connection is 1000 messages or 16 MiB behind";
            Close::With(Some((Code::Closed, text.to_owned())), close_code::AGAIN)
        }
        Ended::Hub(End::Lost) => {
            let text = "messages may have been missed; subscribe again after the last one";
            Close::With(Some((Code::Closed, text.to_owned())), close_code::ERROR)
        }
        Ended::Failed(error) => {
            let text = format!("the history cannot be read: {}", told(error));
            Close::With(Some((Code::Closed, text)), close_code::ERROR)
        }
    }
}
