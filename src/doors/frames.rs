//! Frames of a WebSocket.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::future::{MaybeDone, maybe_done};
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::connection::Guest;
use super::feed::Feed;
use super::stream::{Change, End, KEEP_ALIVE, Looks, Reply, Source, Upgrade, WAIT};
use crate::engine::Claimed;
use crate::error::Error;
use crate::telemetry::streams::{self, SOCKETS};

/// Longest frame of a client, in bytes.
pub const FRAME_MAX_BYTES: usize = 16 * 1024;
/// What is read at a time: each socket keeps so much.
const READ_BUFFER: usize = 2 * 1024;
/// For a client that says nothing, not even that it is there.
const SILENT: Duration = Duration::from_secs(60);
/// Frames of a client that are answered at a time.
const MOST_REPLIES: usize = 100;
/// A client has so much longer for a large frame: these bytes a second, at least.
const LEAST_PACE: usize = 32 * 1024;
/// Longest reason of a close, in bytes.
const REASON_MAX_BYTES: usize = 123;

/// Frames until the client leaves, may no more, or the server ends.
///
/// # Errors
/// When the request is not for a WebSocket.
pub fn answer<S: Source>(
    upgrade: Upgrade,
    feed: Feed,
    guest: Guest,
    source: S,
) -> Result<Response, Error> {
    let upgrade = upgrade
        .map_err(|refused| Error::refused(refused.status().as_u16(), refused.body_text()))?
        .read_buffer_size(READ_BUFFER)
        .max_message_size(FRAME_MAX_BYTES)
        .max_frame_size(FRAME_MAX_BYTES);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let _open = streams::open(&SOCKETS);
        let begun = Instant::now();
        let behind = guest.behind();
        let mut to = To { socket, behind };
        let mut feed = feed;
        let end = serve(&mut to, &mut feed, &guest, &source).await;
        // before the last words, which may not be taken
        feed.give_back().await;
        let code = to.close(&source, end).await;
        tracing::info!(
            subscription.id = source.subscription_id(),
            duration_ms = begun.elapsed().as_millis(),
            ws.code = code,
            "WebSocket ended"
        );
    }))
}

/// The connection that takes what is sent.
struct To {
    socket: WebSocket,
    behind: Duration,
}

impl To {
    async fn tell(&mut self, frame: Message) -> Result<(), End> {
        let length = match &frame {
            Message::Text(text) => text.len(),
            _ => 0,
        };
        let seconds = u64::try_from(length / LEAST_PACE).unwrap_or_default();
        let patience = self.behind + Duration::from_secs(seconds);
        match timeout(patience, self.socket.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Behind),
        }
    }

    async fn text(&mut self, text: String) -> Result<(), End> {
        self.tell(Message::Text(text.into())).await
    }

    /// Tell why it ends; none where nobody is there to hear it.
    async fn close<S: Source>(&mut self, source: &S, end: End) -> Option<u16> {
        let (code, reason) = match end {
            End::Gone => return None,
            End::Drained => (close_code::AWAY, "the server ends".to_owned()),
            End::Behind => (
                close_code::AGAIN,
                "what was sent is not taken fast enough".to_owned(),
            ),
            End::Silent => (
                close_code::AGAIN,
                format!("nothing was heard for {} seconds", SILENT.as_secs()),
            ),
            End::Unreadable => (
                close_code::PROTOCOL,
                format!("that is no frame, or it has more than {FRAME_MAX_BYTES} bytes"),
            ),
            End::Failed(error) => {
                let code = match error.status() {
                    503 => close_code::AGAIN,
                    500.. => close_code::ERROR,
                    _ => close_code::POLICY,
                };
                // a client that takes it not hears of the close neither
                let _told = self.text(source.failure(&error, true)).await;
                (code, error.to_string())
            }
        };
        let reason = Utf8Bytes::from(shortened(reason));
        let _told = self
            .tell(Message::Close(Some(CloseFrame { code, reason })))
            .await;
        Some(code)
    }

    /// Send what was claimed.
    async fn deliver<S: Source>(
        &mut self,
        feed: &mut Feed,
        source: &S,
        claimed: Claimed,
    ) -> Result<(), End> {
        let Claimed {
            deliveries, share, ..
        } = claimed;
        if deliveries.is_empty() {
            return Ok(());
        }
        feed.hold(source.subscription_id(), &deliveries);
        for delivery in deliveries {
            self.text(source.frame(delivery)?).await?;
        }
        drop(share);
        Ok(feed.handed().await?)
    }
}

fn shortened(mut reason: String) -> String {
    while reason.len() > REASON_MAX_BYTES {
        reason.pop();
    }
    reason
}

/// Serve a client until something ends it.
async fn serve<S: Source>(to: &mut To, feed: &mut Feed, guest: &Guest, source: &S) -> End {
    let mut replies = FuturesUnordered::new();
    let mut pulling = None;
    let end = async {
        let mut drained = pin!(guest.drained());
        let mut tick = interval_at(Instant::now() + WAIT, WAIT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut pinged) = (Instant::now(), Instant::now());
        let mut looks = Looks::begin();
        loop {
            if pulling.is_none()
                && let Some(room) = feed.room()
            {
                pulling = Some(maybe_done(Box::pin(source.pull(room))));
            }
            let is_full = feed.is_full();
            if !is_full {
                looks = Looks::begin();
            }
            tokio::select! {
                claimed = pulled(&mut pulling) => match claimed {
                    // others have the bytes of all streams
                    Err(Error::Busy(_)) => {}
                    claimed => to.deliver(feed, source, claimed?).await?,
                },
                Some(reply) = replies.next(), if !replies.is_empty() => {
                    let text = note(feed, reply);
                    beside(&mut pulling, to.text(text)).await?;
                }
                frame = to.socket.recv(), if replies.len() < MOST_REPLIES => {
                    heard = Instant::now();
                    match frame {
                        Some(Ok(Message::Text(text))) => {
                            replies.push(source.reply(text.to_string()));
                        }
                        Some(Ok(Message::Binary(_))) => replies.push(source.reply(String::new())),
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                        Some(Ok(Message::Close(_))) | None => return Err(End::Gone),
                        Some(Err(_)) => return Err(End::Unreadable),
                    }
                }
                looked = looks.next(feed), if is_full => looked?,
                _ = tick.tick() => {
                    if heard.elapsed() > SILENT {
                        return Err(End::Silent);
                    }
                    beside(&mut pulling, source.allowed()).await?;
                    if pinged.elapsed() >= KEEP_ALIVE {
                        pinged = Instant::now();
                        beside(&mut pulling, to.tell(Message::Ping(Bytes::new()))).await?;
                    }
                }
                () = &mut drained => return Err(End::Drained),
            }
        }
    };
    let end: Result<Infallible, End> = end.await;
    let Err(end) = end;
    if let Some(MaybeDone::Done(Ok(claimed))) = &pulling {
        feed.hold(source.subscription_id(), &claimed.deliveries);
    }
    // what it said before is done, not given back
    while let Some(reply) = replies.next().await {
        let text = note(feed, reply);
        if !matches!(end, End::Gone | End::Behind) {
            let _told = to.text(text).await;
        }
    }
    end
}

/// What a pull brings; nothing ever, where there is none.
async fn pulled<F: Future + Unpin>(pulling: &mut Option<MaybeDone<F>>) -> F::Output {
    if let Some(running) = pulling {
        running.await;
    }
    match pulling.take() {
        Some(MaybeDone::Done(output)) => output,
        _ => std::future::pending().await,
    }
}

/// Work while a pull goes on: one that stood still would keep others from what it holds meanwhile, such as the
/// look at a client's token that all of its requests wait for.
async fn beside<F: Future + Unpin, T>(
    pulling: &mut Option<MaybeDone<F>>,
    work: impl Future<Output = T>,
) -> T {
    let goes_on = async {
        if let Some(running) = pulling {
            running.await;
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        done = work => done,
        never = goes_on => match never {},
    }
}

/// What to tell of a reply, once what it changed is noted.
fn note(feed: &mut Feed, reply: Reply) -> String {
    match reply.change {
        Change::Nothing => {}
        Change::Settled(subscription_id, handle) => feed.settled(&subscription_id, handle),
        Change::Credit(more) => feed.credit(more),
    }
    reply.text
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
