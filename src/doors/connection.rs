//! One connection: its requests on their way to the routes, and its end when it does nothing.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, Version, header};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::UpgradeableConnection;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::ServiceExt;

use super::activity::{Activity, Answer, Overdue};
use super::envelope::{Envelope, said};
use super::sent::Sent;
use crate::doors::requests::{Observed, PROBES};
use crate::error::Error;

/// A connection as its requests see it, in their extensions. What outlives a request on the connection,
/// such as a WebSocket, keeps it: then it has its place among the connections, and is waited for.
#[derive(Clone, Debug)]
pub struct Guest {
    peer: Option<IpAddr>,
    draining: CancellationToken,
    given_up: CancellationToken,
    behind: Duration,
    held: Arc<(TaskTrackerToken, Option<OwnedSemaphorePermit>)>,
}

impl Guest {
    /// With its place, unless it is one too many.
    #[must_use]
    pub fn new(
        peer: Option<IpAddr>,
        draining: CancellationToken,
        behind: Duration,
        waited_for: TaskTrackerToken,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            peer,
            draining,
            given_up: CancellationToken::new(),
            behind,
            held: Arc::new((waited_for, place)),
        }
    }

    /// For work that serves several connections: it is waited for as they are, but has no place among them.
    #[must_use]
    pub fn worker(&self) -> Self {
        Self {
            peer: None,
            draining: self.draining.clone(),
            given_up: CancellationToken::new(),
            behind: self.behind,
            held: Arc::new((self.held.0.clone(), None)),
        }
    }

    /// The address of whoever connected: the client, or a proxy in front of it.
    #[must_use]
    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Wait until the server is about to end: a stream ends then.
    pub async fn drained(&self) {
        self.draining.cancelled().await;
    }

    /// How long the client of a stream may take nothing of what it was sent.
    #[must_use]
    pub fn behind(&self) -> Duration {
        self.behind
    }

    /// Break the connection off: its client does not take what it was sent.
    pub fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Told when that was done.
    #[must_use]
    pub fn given_up(&self) -> CancellationToken {
        self.given_up.clone()
    }
}

/// Passes the requests of a connection on; of a crowded one only the probes.
#[derive(Clone, Debug)]
pub struct Front {
    /// Where to.
    pub router: Router,
    /// Words for those that are not passed on.
    pub envelope: Envelope,
    /// Where requests are noted.
    pub activity: Arc<Activity>,
    /// The connection.
    pub guest: Guest,
    /// Whether there were too many connections already.
    pub crowded: bool,
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let begun = self.activity.begin();
        let mut observed = Observed::begin(&mut request);
        request.extensions_mut().insert(self.guest.clone());
        let refused = self.crowded && !PROBES.contains(&request.uri().path());
        let (router, envelope) = (self.router.clone(), self.envelope);
        Box::pin(async move {
            // whoever asks first has sent nothing yet
            let asks = request.headers().contains_key(header::EXPECT);
            let can_go_on = request.version() >= Version::HTTP_2;
            let (parts, incoming) = request.into_parts();
            let sent = Sent::new(incoming);
            let mut response = if refused {
                let text = "too many connections (FASTPUBSUB_API_MAX_CONNECTIONS)";
                said(envelope, Error::Busy(text).into_response())
            } else {
                let body = sent.as_ref().map_or_else(Body::empty, Sent::body);
                let request = Request::from_parts(parts, body);
                router.oneshot(request).await?
            };
            if let Some(sent) = sent
                && !sent.is_read()
                && (asks || !sent.forget().await)
                && !can_go_on
            {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            observed.answer(&mut response);
            Ok(response.map(|body| Answer::new(body, begun, observed)))
        })
    }
}

/// Serve a connection until it ends, is drained, or does nothing for too long.
pub async fn watch(
    connection: UpgradeableConnection<'static, TokioIo<TcpStream>, Front, TokioExecutor>,
    activity: &Activity,
    (draining, given_up): (CancellationToken, CancellationToken),
) {
    let mut connection = pin!(connection);
    let pause = activity.pause();
    let mut looks = interval_at(Instant::now() + pause, pause);
    let mut ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = draining.cancelled(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            () = given_up.cancelled() => return,
            _ = looks.tick() => match activity.overdue() {
                // whoever is told so politely has until the next look
                Some(Overdue::Idle) if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                Some(overdue) => {
                    tracing::debug!(?overdue, "connection given up");
                    return;
                }
                None => {}
            },
        }
    }
}
