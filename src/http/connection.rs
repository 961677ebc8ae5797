//! One connection: its requests on their way to the routes, and its end when it does nothing.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, header};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Connection;
use tokio::net::TcpStream;
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::activity::{Activity, Answer, Overdue};
use crate::error::Error;
use crate::telemetry::requests;

/// What is answered even where there are too many connections.
const PROBES: [&str; 3] = ["/liveness", "/readiness", "/metrics"];

/// Passes the requests of a connection on.
#[derive(Clone, Debug)]
pub struct Front {
    router: Router,
    activity: Arc<Activity>,
    crowded: bool,
}

impl Front {
    /// To these routes; of a crowded one only to the probes.
    #[must_use]
    pub fn new(router: Router, activity: Arc<Activity>, crowded: bool) -> Self {
        Self {
            router,
            activity,
            crowded,
        }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let begun = self.activity.begin();
        let refused = self.crowded && !PROBES.contains(&request.uri().path());
        let router = self.router.clone();
        Box::pin(async move {
            let response = if refused {
                let text = "too many connections (FASTPUBSUB_API_MAX_CONNECTIONS)";
                Error::Busy(text).into_response()
            } else {
                answer(router, request.map(Body::new)).await?
            };
            Ok(response.map(|body| Answer::new(body, begun)))
        })
    }
}

async fn answer(router: Router, mut request: Request<Body>) -> Result<Response<Body>, Infallible> {
    if !consumes(request.uri().path()) {
        return router.oneshot(request).await;
    }
    // a HEAD would run the GET, which leases messages, and throw its answer away: before it is
    // routed it becomes a method that no route has
    if request.method() == Method::HEAD
        && let Ok(refused) = Method::from_bytes(requests::REFUSED_HEAD.as_bytes())
    {
        *request.method_mut() = refused;
    }
    let mut response = router.oneshot(request).await?;
    // routes offer HEAD wherever they have GET
    if let Some(allow) = response.headers_mut().get_mut(header::ALLOW) {
        let methods = allow.to_str().unwrap_or_default().split(',');
        let without: Vec<&str> = methods.filter(|name| *name != "HEAD").collect();
        if let Ok(without) = HeaderValue::from_str(&without.join(",")) {
            *allow = without;
        }
    }
    Ok(response)
}

/// Whether GET on a path changes something.
fn consumes(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    path.starts_with("/subscriptions/") && path.ends_with("/messages")
}

/// Serve a connection until it ends, is drained, or does nothing for too long.
pub async fn watch(
    connection: Connection<'static, TokioIo<TcpStream>, Front, TokioExecutor>,
    activity: &Activity,
    draining: CancellationToken,
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
