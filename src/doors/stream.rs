//! Messages as a stream: Server-Sent Events, or frames of a WebSocket on which the client settles. Both ride on
//! pulls that wait; a client that does not take what it was sent is sent no more.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::activity::PIECE;
use super::connection::Guest;
use super::feed::Feed;
use crate::db::messages::Delivery;
use crate::engine::Claimed;
use crate::error::Error;

/// How long a pull waits, and how long a stream is silent at most.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Between two looks whether a client that holds all it may has settled something elsewhere.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// For a client that takes nothing of a WebSocket, or says nothing on it.
const SILENT: Duration = Duration::from_secs(60);
/// When the client of a stream that ends may come back, in milliseconds.
const RETRY: &str = "retry: 1000\n\n";

/// Where the messages of a stream come from, and how they are shown.
pub struct Source<P, S> {
    /// Pulls up to so many, and waits for [`KEEP_ALIVE`].
    pub pull: P,
    /// What is shown of a delivery.
    pub show: S,
    /// Whose they are, where they do not say.
    pub subscription_id: String,
}

impl<P, S> Source<P, S> {
    fn text<T: Serialize>(&self, delivery: Delivery) -> Result<String, Error>
    where
        S: Fn(&str, Delivery) -> T,
    {
        let id = delivery
            .subscription_id
            .clone()
            .unwrap_or_else(|| self.subscription_id.clone());
        serde_json::to_string(&(self.show)(&id, delivery))
            .map_err(|error| Error::Internal(std::sync::Arc::new(error)))
    }
}

/// Server-Sent Events, until the client leaves or the server ends.
pub fn events<P, F, S, T>(feed: Feed, guest: Guest, source: Source<P, S>) -> Response
where
    P: Fn(i32) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Claimed, Error>> + Send,
    S: Fn(&str, Delivery) -> T + Send + Sync + 'static,
    T: Serialize,
{
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        let mut feed = feed;
        send_events(&mut feed, &guest, &source, &sender).await;
        feed.give_back().await;
    });
    let chunks = unfold(receiver, |mut receiver| async move {
        let mut chunk = receiver.recv().await?;
        while chunk.is_empty() {
            chunk = receiver.recv().await?;
        }
        Some((Ok::<_, Infallible>(chunk), receiver))
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

async fn send_events<P, F, S, T>(
    feed: &mut Feed,
    guest: &Guest,
    source: &Source<P, S>,
    sender: &mpsc::Sender<Bytes>,
) where
    P: Fn(i32) -> F,
    F: Future<Output = Result<Claimed, Error>>,
    S: Fn(&str, Delivery) -> T,
    T: Serialize,
{
    let mut drained = pin!(guest.drained());
    let mut said = Instant::now();
    loop {
        let more = async {
            match feed.room() {
                Some(room) => (source.pull)(room).await,
                None => {
                    sleep(LOOK_AGAIN).await;
                    feed.look().await.map(|()| Claimed::default())
                }
            }
        };
        let claimed = tokio::select! {
            claimed = more => claimed,
            () = sender.closed() => return,
            () = &mut drained => {
                let _gone = sender.try_send(RETRY.into());
                return;
            }
        };
        let sent = match claimed {
            Ok(claimed) if claimed.deliveries.is_empty() => {
                if said.elapsed() < KEEP_ALIVE {
                    continue;
                }
                hand_over(sender, ": nothing new\n\n".to_owned()).await
            }
            Ok(Claimed {
                deliveries, share, ..
            }) => {
                feed.hold(&source.subscription_id, &deliveries);
                let chunk = match chunk(source, deliveries) {
                    Ok(chunk) => chunk,
                    Err(error) => return end(sender, &error).await,
                };
                if !hand_over(sender, chunk).await {
                    return;
                }
                drop(share);
                if let Err(error) = feed.handed().await {
                    return end(sender, &error).await;
                }
                true
            }
            Err(error) => return end(sender, &error).await,
        };
        if !sent {
            return;
        }
        said = Instant::now();
    }
}

fn chunk<P, S, T>(source: &Source<P, S>, deliveries: Vec<Delivery>) -> Result<String, Error>
where
    S: Fn(&str, Delivery) -> T,
    T: Serialize,
{
    let mut chunk = String::new();
    for delivery in deliveries {
        let id = delivery.message_id;
        let data = source.text(delivery)?;
        chunk.push_str(&format!("event: message\nid: {id}\ndata: {data}\n\n"));
    }
    Ok(chunk)
}

/// Whether the connection took all of a chunk. One of several pieces it has taken when it asks for what
/// follows, which is nothing.
async fn hand_over(sender: &mpsc::Sender<Bytes>, chunk: String) -> bool {
    let is_whole = chunk.len() <= PIECE;
    let sent = sender.send(chunk.into()).await.is_ok();
    let asked = sent && (is_whole || sender.send(Bytes::new()).await.is_ok());
    asked && sender.reserve().await.is_ok()
}

async fn end(sender: &mpsc::Sender<Bytes>, error: &Error) {
    let data = json!({"error": error.to_string()});
    let last = format!("event: error\ndata: {data}\n\n{RETRY}");
    hand_over(sender, last).await;
}

/// What became of a frame of a client.
#[derive(Debug)]
pub struct Reply {
    /// What it is told.
    pub text: String,
    /// Subscription and message of what it settled.
    pub settled: Option<(String, uuid::Uuid)>,
}

/// Frames of a WebSocket, until the client leaves or the server ends; `reply` answers those of the client, and
/// `allowed` says whether it still may.
pub async fn frames<P, F, S, T, R, A>(
    mut socket: WebSocket,
    mut feed: Feed,
    guest: Guest,
    source: Source<P, S>,
    (reply, allowed): (impl Fn(String) -> R, impl Fn() -> A),
) where
    P: Fn(i32) -> F,
    F: Future<Output = Result<Claimed, Error>>,
    S: Fn(&str, Delivery) -> T,
    T: Serialize,
    R: Future<Output = Reply>,
    A: Future<Output = Result<(), Error>>,
{
    let mut drained = pin!(guest.drained());
    let mut tick = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let mut pulling = None;
    let ended = loop {
        if pulling.is_none()
            && let Some(room) = feed.room()
        {
            pulling = Some(Box::pin((source.pull)(room)));
        }
        let is_full = pulling.is_none();
        let next = async {
            match &mut pulling {
                Some(pulling) => pulling.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            claimed = next => {
                pulling = None;
                let sent = match claimed {
                    Ok(claimed) => send(&mut socket, &mut feed, &source, claimed).await,
                    Err(error) => Err(Some(error)),
                };
                if let Err(ended) = sent {
                    break ended;
                }
            }
            frame = socket.recv() => {
                heard = Instant::now();
                let text = match frame {
                    Some(Ok(Message::Text(text))) => text.to_string(),
                    Some(Ok(Message::Binary(_))) => String::new(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break None,
                };
                let Reply { text, settled } = reply(text).await;
                if let Some((subscription_id, message_id)) = settled {
                    feed.settled(&subscription_id, message_id);
                }
                if !tell(&mut socket, Message::Text(text.into())).await {
                    break None;
                }
            }
            () = sleep(LOOK_AGAIN), if is_full => {
                if let Err(error) = feed.look().await {
                    break Some(error);
                }
            }
            _ = tick.tick() => {
                if heard.elapsed() > SILENT {
                    break None;
                }
                if let Err(error) = allowed().await {
                    break Some(error);
                }
                if !tell(&mut socket, Message::Ping(Bytes::new())).await {
                    break None;
                }
            }
            () = &mut drained => {
                close(&mut socket, close_code::AWAY, "the server ends".into()).await;
                break None;
            }
        }
    };
    drop(pulling);
    if let Some(error) = ended {
        let text = json!({"type": "error", "error": error.to_string()}).to_string();
        tell(&mut socket, Message::Text(text.into())).await;
        let is_failure = error.status() >= 500;
        let code = if is_failure {
            close_code::ERROR
        } else {
            close_code::POLICY
        };
        close(&mut socket, code, "".into()).await;
    }
    feed.give_back().await;
}

/// Send what was claimed; an error, or none where the client is gone.
async fn send<P, S, T>(
    socket: &mut WebSocket,
    feed: &mut Feed,
    source: &Source<P, S>,
    claimed: Claimed,
) -> Result<(), Option<Error>>
where
    S: Fn(&str, Delivery) -> T,
    T: Serialize,
{
    let Claimed {
        deliveries, share, ..
    } = claimed;
    if deliveries.is_empty() {
        return Ok(());
    }
    feed.hold(&source.subscription_id, &deliveries);
    for delivery in deliveries {
        let text = source.text(delivery).map_err(Some)?;
        if !tell(socket, Message::Text(text.into())).await {
            return Err(None);
        }
    }
    drop(share);
    feed.handed().await.map_err(Some)
}

/// Whether the client took a frame.
async fn tell(socket: &mut WebSocket, frame: Message) -> bool {
    matches!(timeout(SILENT, socket.send(frame)).await, Ok(Ok(())))
}

async fn close(socket: &mut WebSocket, code: u16, reason: Utf8Bytes) {
    let frame = CloseFrame { code, reason };
    tell(socket, Message::Close(Some(frame))).await;
}
