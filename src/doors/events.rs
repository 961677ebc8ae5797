//! Server-Sent Events.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::activity::PIECE;
use super::connection::Guest;
use super::feed::{Feed, Held};
use super::stream::{End, KEEP_ALIVE, Looks, Source};
use crate::engine::Claimed;
use crate::error::Error;
use crate::telemetry::streams::{self, EVENTS};

/// When the client of a stream that ends may come back, in milliseconds.
const RETRY: &str = "retry: 1000\n\n";

/// Events until the client leaves, may no more, or the server ends.
pub fn answer<S: Source>(feed: Feed, guest: Guest, source: S) -> Response {
    let (mut to, chunks) = To::begin(guest.behind());
    tokio::spawn(async move {
        let _open = streams::open(&EVENTS);
        let mut feed = feed;
        let end = send(&mut feed, &guest, &source, &mut to).await;
        // before the last words, which may not be taken
        feed.give_back().await;
        let last = match end {
            Err(End::Failed(error)) => {
                let data = source.failure(&error, false);
                format!("event: error\ndata: {data}\n\n{RETRY}")
            }
            Err(End::Drained) => RETRY.to_owned(),
            Err(End::Behind) => return guest.give_up(),
            _ => return,
        };
        if let Err(End::Behind) = to.hand_over(last).await {
            guest.give_up();
        }
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache, private"),
        ),
        // nginx would keep events until it has a buffer full
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

/// The connection that takes what is sent.
struct To {
    sender: mpsc::Sender<Bytes>,
    behind: Duration,
    /// Pieces that were sent, and those of them that the connection took.
    sent: usize,
    taken: Arc<AtomicUsize>,
}

impl To {
    /// With what the connection takes.
    fn begin(behind: Duration) -> (Self, impl Stream<Item = Result<Bytes, Infallible>>) {
        let (sender, receiver) = mpsc::channel::<Bytes>(1);
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let chunks = unfold((receiver, counter), |(mut receiver, counter)| async move {
            let chunk = receiver.recv().await?;
            counter.fetch_add(1, Ordering::Release);
            Some((Ok(chunk), (receiver, counter)))
        });
        let to = Self {
            sender,
            behind,
            sent: 0,
            taken,
        };
        (to, chunks)
    }

    /// Hand over a text, until the connection took all of it.
    async fn hand_over(&mut self, text: String) -> Result<(), End> {
        let mut rest = Bytes::from(text);
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(PIECE));
            match timeout(self.behind, self.sender.send(piece)).await {
                Ok(Ok(())) => self.sent += 1,
                Ok(Err(_)) => return Err(End::Gone),
                Err(_) => return Err(End::Behind),
            }
        }
        let end = match timeout(self.behind, self.sender.reserve()).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) => End::Gone,
            Err(_) => End::Behind,
        };
        // it may have left with all of it
        if self.taken.load(Ordering::Acquire) == self.sent {
            Ok(())
        } else {
            Err(end)
        }
    }

    /// Hand over what was claimed, and note it: by the piece, so that a client that leaves has all that is
    /// noted and nothing that is not.
    async fn deliver<S: Source>(
        &mut self,
        feed: &mut Feed,
        source: &S,
        claimed: Claimed,
    ) -> Result<(), End> {
        // held until all is handed over
        let Claimed {
            deliveries,
            share: _share,
            ..
        } = claimed;
        feed.hold(source.subscription_id(), &deliveries);
        let (mut text, mut group) = (String::new(), Held::default());
        for delivery in deliveries {
            let (named, handle) = (delivery.subscription_id.clone(), delivery.handle());
            let (id, data) = source.event(delivery)?;
            let event = format!("event: message\nid: {id}\ndata: {data}\n\n");
            if !text.is_empty() && text.len() + event.len() > PIECE {
                self.hand_over(std::mem::take(&mut text)).await?;
                feed.handed(std::mem::take(&mut group)).await?;
            }
            text.push_str(&event);
            group.add(named.as_deref().unwrap_or(source.subscription_id()), handle);
        }
        self.hand_over(text).await?;
        Ok(feed.handed(group).await?)
    }
}

async fn send<S: Source>(
    feed: &mut Feed,
    guest: &Guest,
    source: &S,
    to: &mut To,
) -> Result<(), End> {
    // a client whose server dies comes back as soon
    to.hand_over(RETRY.to_owned()).await?;
    let mut drained = pin!(guest.drained());
    let mut said = Instant::now();
    let mut looks = Looks::begin();
    loop {
        let more = async {
            match feed.room() {
                Some(room) => {
                    looks = Looks::begin();
                    source.pull(room).await
                }
                None => {
                    looks.next(feed).await?;
                    source.allowed().await?;
                    Ok(Claimed::default())
                }
            }
        };
        let claimed = tokio::select! {
            claimed = more => claimed,
            () = to.sender.closed() => return Err(End::Gone),
            () = &mut drained => return Err(End::Drained),
        };
        let claimed = match claimed {
            // others have the bytes of all streams
            Err(Error::Busy(_)) => Claimed::default(),
            other => other?,
        };
        if !claimed.deliveries.is_empty() {
            to.deliver(feed, source, claimed).await?;
        } else if said.elapsed() >= KEEP_ALIVE {
            to.hand_over(": nothing new\n\n".to_owned()).await?;
        } else {
            continue;
        }
        said = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use futures_util::future::join;

    use super::*;

    /// Hand over so many bytes to a connection that ends once it took one piece.
    async fn handed_over(bytes: usize) -> Result<(), End> {
        let (mut to, chunks) = To::begin(Duration::from_secs(60));
        let takes_one = async move { Box::pin(chunks).next().await };
        let (handed, taken) = join(to.hand_over("x".repeat(bytes)), takes_one).await;
        assert!(taken.is_some());
        handed
    }

    #[tokio::test]
    async fn only_what_was_taken_to_its_end_is_handed_over() {
        assert!(handed_over(PIECE).await.is_ok());
        assert!(matches!(handed_over(PIECE + 1).await, Err(End::Gone)));
    }
}
