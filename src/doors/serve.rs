//! Serving connections: HTTP/1.1 and HTTP/2 side by side, as many as there is room for, and a bounded
//! drain at the end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::activity::Activity;
use super::connection::{self, Front, Guest};
use super::envelope::Envelope;
use super::peer;
use crate::app::App;
use crate::config::Settings;
use crate::descriptors;

/// Pause after a connection could not be taken, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections beyond the limit that are held long enough to be told so; the oldest has to go first.
const CROWD: usize = 32;
/// File descriptors for everything but connections of clients, of Postgres and to push endpoints.
const OTHER_DESCRIPTORS: usize = 32;
/// Longest head of a request; the longest piece of a body that waits in a buffer.
const BUFFER: usize = 64 * 1024;
/// Requests that one HTTP/2 connection may have open, and bytes of their bodies on the way.
const STREAMS: u32 = 64;
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// Between two complaints about too many connections.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// How many connections there may be, and how long one may do nothing.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections; others are told that there are too many, but for the probes.
    pub connections: usize,
    /// For a connection without a request, or one whose head is on the way. Longer than the minute
    /// after which load balancers forget idle connections: the server must not be the first.
    pub idle: Duration,
    /// For an answer of which the client takes nothing.
    pub stalled: Duration,
    /// For a stream of which the client takes nothing.
    pub behind: Duration,
    /// As `idle`, for connections beyond the limit.
    pub idle_in_crowd: Duration,
}

impl Limits {
    /// As the settings say, as far as there are file descriptors.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let wanted = settings.api_max_connections;
        let database = settings.database_pool_size + settings.database_max_overflow;
        let database = usize::try_from(database).unwrap_or(usize::MAX);
        let kept = database.saturating_add(CROWD + OTHER_DESCRIPTORS);
        let descriptors = descriptors::raise_limit().unwrap_or(usize::MAX);
        let kept = kept.saturating_add(descriptors::for_pushes(descriptors));
        let connections = wanted.min(descriptors.saturating_sub(kept)).max(1);
        if connections < wanted {
            tracing::warn!(
                "{descriptors} file descriptors (ulimit -n) are enough for {connections} \
                 connections, not for {wanted} (FASTPUBSUB_API_MAX_CONNECTIONS)"
            );
        }
        Self {
            connections,
            idle: Duration::from_secs(65),
            stalled: Duration::from_secs(60),
            behind: Duration::from_secs(15),
            idle_in_crowd: Duration::from_secs(2),
        }
    }
}

/// A listener, and the doors that are open on it.
pub struct Listening {
    /// Where clients connect.
    pub listener: TcpListener,
    /// The doors, behind routing.
    pub router: Router,
    /// The words of whoever is at the root, for connections that come no further.
    pub envelope: Envelope,
}

/// Serve until `shutdown`, then let requests in flight finish within the limit of the settings. What
/// would go on for longer, such as a stream, ends with [`Guest::drained`].
pub async fn serve(
    listening: Vec<Listening>,
    app: &App,
    shutdown: CancellationToken,
    limits: Limits,
) {
    let mut gate = Gate::new(limits);
    let mut entrances = Vec::new();
    let mut accepting = JoinSet::new();
    let (arrived, mut arrivals) = mpsc::channel(1);
    for (entrance, at) in listening.into_iter().enumerate() {
        accepting.spawn(accept(at.listener, entrance, arrived.clone()));
        entrances.push((at.router, at.envelope));
    }
    loop {
        tokio::select! {
            Some((stream, entrance)) = arrivals.recv() => {
                if let Some((router, envelope)) = entrances.get(entrance) {
                    gate.take(stream, router, *envelope);
                }
            }
            () = shutdown.cancelled() => break,
        }
    }
    accepting.shutdown().await;
    app.engine.end_waits();
    gate.draining.cancel();
    gate.connections.close();
    let limit = Duration::from_secs(app.settings.api_shutdown_timeout_seconds);
    tokio::select! {
        () = gate.connections.wait() => {}
        () = tokio::time::sleep(limit) => {
            tracing::warn!(seconds = limit.as_secs(), "stopped with requests in flight");
        }
    }
}

/// Take connections, for ever.
async fn accept(listener: TcpListener, entrance: usize, arrived: mpsc::Sender<(TcpStream, usize)>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ending = arrived.send((stream, entrance)).await;
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Who is in, and who is only told that there is no room.
struct Gate {
    limits: Limits,
    http: Builder<TokioExecutor>,
    crowded_http: Builder<TokioExecutor>,
    room: Arc<Semaphore>,
    crowd: VecDeque<AbortHandle>,
    connections: TaskTracker,
    draining: CancellationToken,
    complained: Option<Instant>,
}

impl Gate {
    fn new(limits: Limits) -> Self {
        let mut crowded_http = builder(limits.idle_in_crowd);
        crowded_http.http1().keep_alive(false);
        Self {
            limits,
            http: builder(limits.idle),
            crowded_http,
            room: Arc::new(Semaphore::new(limits.connections)),
            crowd: VecDeque::new(),
            connections: TaskTracker::new(),
            draining: CancellationToken::new(),
            complained: None,
        }
    }

    fn take(&mut self, stream: TcpStream, router: &Router, envelope: Envelope) {
        // a client that is gone by now is noticed when it is served
        let _gone = peer::mind(&stream, self.limits.stalled);
        match Arc::clone(&self.room).try_acquire_owned() {
            Ok(place) => {
                self.spawn(stream, router, envelope, Some(place));
            }
            Err(_) => {
                self.complain();
                self.crowd.retain(|connection| !connection.is_finished());
                while self.crowd.len() >= CROWD
                    && let Some(oldest) = self.crowd.pop_front()
                {
                    oldest.abort();
                }
                let connection = self.spawn(stream, router, envelope, None);
                self.crowd.push_back(connection);
            }
        }
    }

    fn spawn(
        &self,
        stream: TcpStream,
        router: &Router,
        envelope: Envelope,
        place: Option<OwnedSemaphorePermit>,
    ) -> AbortHandle {
        let crowded = place.is_none();
        let (http, idle) = if crowded {
            (&self.crowded_http, self.limits.idle_in_crowd)
        } else {
            (&self.http, self.limits.idle)
        };
        let activity = Arc::new(Activity::new(idle, self.limits.stalled));
        let peer = stream.peer_addr().ok().map(|peer| peer.ip());
        let (waited_for, behind) = (self.connections.token(), self.limits.behind);
        let guest = Guest::new(peer, self.draining.clone(), behind, waited_for, place);
        let given_up = guest.given_up();
        let front = Front {
            router: router.clone(),
            envelope,
            activity: Arc::clone(&activity),
            guest,
            crowded,
        };
        let served = http
            .serve_connection_with_upgrades(TokioIo::new(stream), front)
            .into_owned();
        let draining = self.draining.clone();
        let task = self
            .connections
            .spawn(async move { connection::watch(served, &activity, (draining, given_up)).await });
        task.abort_handle()
    }

    fn complain(&mut self) {
        let lately = |at: Instant| at.elapsed() < COMPLAINT_PAUSE;
        if !self.complained.is_some_and(lately) {
            self.complained = Some(Instant::now());
            tracing::warn!(
                connections = self.limits.connections,
                "too many connections (FASTPUBSUB_API_MAX_CONNECTIONS)"
            );
        }
    }
}

/// What a client can make a connection hold stays small. Against streams that are reset as soon as
/// they are opened, and heads without end, the library has limits of its own.
fn builder(idle: Duration) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(BUFFER);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(64 * 1024)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(BUFFER);
    http
}
