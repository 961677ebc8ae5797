//! Server-Sent Events.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::activity::PIECE;
use super::connection::Guest;
use super::feed::Feed;
use super::stream::{End, KEEP_ALIVE, Looks, Source};
use crate::engine::Claimed;
use crate::error::Error;
use crate::telemetry::streams::{self, EVENTS};

/// When the client of a stream that ends may come back, in milliseconds.
const RETRY: &str = "retry: 1000\n\n";

/// Events until the client leaves, may no more, or the server ends.
pub fn answer<S: Source>(feed: Feed, guest: Guest, source: S) -> Response {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        let _open = streams::open(&EVENTS);
        let mut feed = feed;
        let mut to = To {
            sender,
            behind: guest.behind(),
        };
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
    let chunks = unfold(receiver, |mut receiver| async move {
        let chunk = receiver.recv().await?;
        Some((Ok::<_, Infallible>(chunk), receiver))
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
}

impl To {
    /// Hand over a text, until the connection took all of it.
    async fn hand_over(&mut self, text: String) -> Result<(), End> {
        let mut rest = Bytes::from(text);
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(PIECE));
            match timeout(self.behind, self.sender.send(piece)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(End::Gone),
                Err(_) => return Err(End::Behind),
            }
        }
        match timeout(self.behind, self.sender.reserve()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Behind),
        }
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
        let Claimed {
            deliveries, share, ..
        } = match claimed {
            // others have the bytes of all streams
            Err(Error::Busy(_)) => Claimed::default(),
            other => other?,
        };
        if !deliveries.is_empty() {
            feed.hold(source.subscription_id(), &deliveries);
            let mut text = String::new();
            for delivery in deliveries {
                let (id, data) = source.event(delivery)?;
                text.push_str(&format!("event: message\nid: {id}\ndata: {data}\n\n"));
            }
            to.hand_over(text).await?;
            drop(share);
            feed.handed().await?;
        } else if said.elapsed() >= KEEP_ALIVE {
            to.hand_over(": nothing new\n\n".to_owned()).await?;
        } else {
            continue;
        }
        said = Instant::now();
    }
}
