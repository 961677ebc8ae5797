//! Frames of a WebSocket.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::Message;
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout_at};

use super::connection::Guest;
use super::feed::Feed;
use super::socket::{FRAME_MAX_BYTES, SILENT, To};
use super::stream::{Change, End, KEEP_ALIVE, Looks, Reply, Source, Upgrade, WAIT};
use crate::error::Error;
use crate::telemetry::streams::{self, SOCKETS};

/// What is read at a time: each socket keeps so much.
const READ_BUFFER: usize = 2 * 1024;
/// Frames of a client that are answered at a time.
const MOST_REPLIES: usize = 100;
/// After the end what had come is read for so long, as long as something comes, and so many frames at most.
const LAST: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_millis(100);
const MOST_LAST: usize = 2000;

/// Frames that are being answered.
type Replies<'a> = FuturesUnordered<BoxFuture<'a, Reply>>;

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
        let mut to = To::new(socket, guest.behind());
        let mut feed = feed;
        let mut replies = Replies::new();
        let end = serve(&mut to, &mut feed, &guest, &source, &mut replies).await;
        let told = hear_out(&mut to, &mut feed, &source, &mut replies).await;
        // before the last words, which may not be taken
        feed.give_back().await;
        to.tell_all(told).await;
        let code = to.close(&source, end).await;
        tracing::info!(
            subscription.id = source.subscription_id(),
            duration_ms = begun.elapsed().as_millis(),
            ws.code = code,
            "WebSocket ended"
        );
    }))
}

/// Serve a client until something ends it.
async fn serve<'a, S: Source>(
    to: &mut To,
    feed: &mut Feed,
    guest: &Guest,
    source: &'a S,
    replies: &mut Replies<'a>,
) -> End {
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
                        Some(Ok(Message::Close(_))) | None => return Err(End::Gone),
                        Some(Ok(message)) => if let Some(frame) = frame_of(message) {
                            // not within the reply, which may stand still
                            beside(&mut pulling, source.allowed()).await?;
                            replies.push(Box::pin(source.reply(frame)));
                        },
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
    end
}

/// What a client said before the end is done, not given back: also what has come and was not read yet. Returns
/// what it is told of that.
async fn hear_out<'a, S: Source>(
    to: &mut To,
    feed: &mut Feed,
    source: &'a S,
    replies: &mut Replies<'a>,
) -> Vec<String> {
    let mut told = Vec::new();
    let until = Instant::now() + LAST;
    let (mut reads, mut left) = (true, MOST_LAST);
    while reads || !replies.is_empty() {
        let quiet = until.min(Instant::now() + QUIET);
        tokio::select! {
            Some(reply) = replies.next(), if !replies.is_empty() => told.push(note(feed, reply)),
            read = timeout_at(quiet, to.socket.recv()), if reads && replies.len() < MOST_REPLIES => {
                let Ok(Some(Ok(message))) = read else {
                    reads = false;
                    continue;
                };
                if let Some(frame) = frame_of(message) {
                    left -= 1;
                    // who may no more is not heard
                    reads = left > 0 && source.allowed().await.is_ok();
                    if reads {
                        replies.push(Box::pin(source.reply(frame)));
                    }
                }
            }
        }
    }
    told
}

/// The text of a frame that wants an answer; what is no text is no JSON either.
fn frame_of(message: Message) -> Option<String> {
    match message {
        Message::Text(text) => Some(text.to_string()),
        Message::Binary(_) => Some(String::new()),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => None,
    }
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
