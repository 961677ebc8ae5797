//! The body of a request on its way to a handler, which may answer without having read it. What is left
//! is then read and forgotten: a client that sends to the end before it reads would never see the answer,
//! and its next request would be lost.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};

/// Up to so many bytes, and for so long, what nobody wants is read.
const FORGOTTEN: usize = 32 * 1024 * 1024;
const FORGETTING: Duration = Duration::from_secs(2);

/// A body, of which both who reads it and who forgets the rest have a hold.
#[derive(Clone, Debug)]
pub struct Sent(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    body: Incoming,
    /// Of a body without a length only its reader knows.
    ended: bool,
}

impl State {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.ended |= matches!(polled, Poll::Ready(None));
        polled
    }
}

impl Sent {
    /// What a client sends, unless that is nothing.
    #[must_use]
    pub fn new(body: Incoming) -> Option<Self> {
        let state = State { body, ended: false };
        (!state.body.is_end_stream()).then(|| Self(Arc::new(Mutex::new(state))))
    }

    /// For the handler.
    pub fn body(&self) -> Body {
        Body::new(self.clone())
    }

    /// Whether all of it was read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        let state = self.lock();
        state.ended || state.body.is_end_stream()
    }

    /// Read the rest and forget it; whether that came to its end.
    pub async fn forget(&self) -> bool {
        let mut left = FORGOTTEN;
        let forgetting = async {
            while !self.is_read() {
                let frame = poll_fn(|context| self.lock().poll_frame(context));
                match frame.await {
                    None => return true,
                    Some(Err(_)) => return false,
                    Some(Ok(frame)) => {
                        let length = frame.data_ref().map_or(0, Bytes::len);
                        match left.checked_sub(length) {
                            Some(rest) => left = rest,
                            None => return false,
                        }
                    }
                }
            }
            true
        };
        let forgotten = tokio::time::timeout(FORGETTING, forgetting).await;
        forgotten.unwrap_or(false)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.lock().poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.is_read()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().body.size_hint()
    }
}
