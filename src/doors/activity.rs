//! What a connection is doing, and since when it does nothing: waiting for a handler is work, not
//! asking for anything and not taking an answer are not.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use super::requests::Observed;

/// Most bytes of an answer that are handed over at a time: so long as the client does not take them,
/// the next are not asked for.
pub const PIECE: usize = 64 * 1024;

/// The requests of a connection.
#[derive(Debug)]
pub struct Activity {
    idle: Duration,
    stalled: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: u64,
    requests: Vec<Request>,
    /// When the last request ended.
    last: Instant,
}

#[derive(Debug)]
struct Request {
    number: u64,
    /// When the client last took a part of the answer; none as long as there is no answer.
    taken: Option<Instant>,
}

/// Why a connection should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// It asks for nothing.
    Idle,
    /// It takes nothing of an answer.
    Stalled,
}

impl Activity {
    /// Of a new connection, which may be idle and stalled for so long.
    #[must_use]
    pub fn new(idle: Duration, stalled: Duration) -> Self {
        Self {
            idle,
            stalled,
            state: Mutex::new(State {
                next: 0,
                requests: Vec::new(),
                last: Instant::now(),
            }),
        }
    }

    /// How often to look.
    #[must_use]
    pub fn pause(&self) -> Duration {
        (self.idle.min(self.stalled) / 12).max(Duration::from_millis(10))
    }

    /// Whether the connection has done nothing for too long.
    #[must_use]
    pub fn overdue(&self) -> Option<Overdue> {
        let now = Instant::now();
        self.with(|state| {
            let late = |request: &Request| request.taken.is_some_and(|at| at + self.stalled <= now);
            if state.requests.is_empty() {
                (state.last + self.idle <= now).then_some(Overdue::Idle)
            } else {
                state.requests.iter().any(late).then_some(Overdue::Stalled)
            }
        })
    }

    /// A request begins.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Begun {
        let number = self.with(|state| {
            let number = state.next;
            state.next += 1;
            state.requests.push(Request {
                number,
                taken: None,
            });
            number
        });
        Begun {
            activity: Arc::clone(self),
            number,
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A request, until its answer is handed over or given up.
#[derive(Debug)]
pub struct Begun {
    activity: Arc<Activity>,
    number: u64,
}

impl Begun {
    fn taken(&self) {
        self.activity.with(|state| {
            let mut requests = state.requests.iter_mut();
            if let Some(request) = requests.find(|request| request.number == self.number) {
                request.taken = Some(Instant::now());
            }
        });
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.activity.with(|state| {
            state
                .requests
                .retain(|request| request.number != self.number);
            state.last = Instant::now();
        });
    }
}

/// The body of an answer, in pieces.
#[derive(Debug)]
pub struct Answer {
    body: Body,
    /// What came of the body and was not handed over yet.
    rest: Bytes,
    request: Begun,
    _observed: Observed,
}

impl Answer {
    /// The answer to a request, whose end is that of the request.
    #[must_use]
    pub fn new(body: Body, request: Begun, observed: Observed) -> Self {
        request.taken();
        Self {
            body,
            rest: Bytes::new(),
            request,
            _observed: observed,
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.request.taken();
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = u64::try_from(self.rest.len()).unwrap_or_default();
        let of_body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower() + rest);
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
