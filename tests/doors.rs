//! Two doors side by side: the native one, and one of this test whose errors have other words.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use fastpubsub::app::App;
use fastpubsub::auth::scopes::TopicsPublish;
use fastpubsub::doors::caller::Caller;
use fastpubsub::doors::connection::Guest;
use fastpubsub::doors::envelope::Envelope;
use fastpubsub::doors::mount::{Mount, router};
use fastpubsub::doors::serve::{Limits, Listening, serve};
use fastpubsub::doors::{self, body, fastapi};
use fastpubsub::error::Error;
use fastpubsub::telemetry::metrics::Metrics;
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::support::database::TestDatabase;
use crate::support::{Answer, SECRET_KEY, answer, settings};

/// The words of the other door.
fn words(error: &Error) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap();
    (status, format!("no: {error}")).into_response()
}

async fn take(State(app): State<App>, request: Request) -> Result<String, Error> {
    let (parts, sent) = request.into_parts();
    let bytes = body::read(&parts.headers, sent, 10, &app).await?;
    Ok(format!("{} bytes", bytes.len()))
}

async fn consume(State(app): State<App>) -> Result<(), Error> {
    app.engine.nack("missing", &[]).await
}

async fn guarded(_: Caller<TopicsPublish>) {}

#[expect(clippy::panic, reason = "what is tested")]
async fn panics() {
    panic!("told to")
}

/// A line at once, and another one when the server ends.
async fn stream(Extension(guest): Extension<Guest>) -> Body {
    let first = futures_util::stream::iter([Ok::<_, Infallible>("first\n")]);
    let last = futures_util::stream::once(async move {
        guest.drained().await;
        Ok("last\n")
    });
    Body::from_stream(first.chain(last))
}

/// Echo what comes on an upgraded connection until the server ends.
async fn upgrade(Extension(guest): Extension<Guest>, request: Request) -> Response {
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        let (mut read, mut write) = split(TokioIo::new(upgraded));
        tokio::select! {
            _ = copy(&mut read, &mut write) => {}
            () = guest.drained() => write.write_all(b"bye").await.unwrap(),
        }
        write.shutdown().await.unwrap();
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("echo"));
    response
}

fn other(app: &App, prefix: &'static str) -> Mount {
    let routes = Router::new()
        .route("/take", post(take))
        .route("/consume", get(consume))
        .route("/guarded", get(guarded))
        .route("/panics", get(panics))
        .route("/stream", get(stream))
        .route("/upgrade", get(upgrade))
        .fallback(|| async { Error::refused(404, "no such path") })
        .method_not_allowed_fallback(|| async { Error::refused(405, "no such method") })
        .with_state(app.clone());
    Mount {
        prefix,
        routes,
        envelope: words,
        cors: None,
    }
}

/// Both doors on one address, and the other one alone on a second.
struct Service {
    both: String,
    alone: String,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
    _database: TestDatabase,
}

async fn start(flags: &[&str], connections: usize) -> Service {
    let database = TestDatabase::create().await;
    let app = App::new(
        settings(flags),
        database.pool(),
        Metrics::install().unwrap(),
    );
    let mut mounts = doors::mounts(&app);
    mounts.push(other(&app, "/other"));
    let mut listening = Vec::new();
    let mut urls = Vec::new();
    let all: [(_, Envelope); 2] = [(mounts, fastapi::envelope), (vec![other(&app, "")], words)];
    for (mounts, envelope) in all {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        urls.push(format!("http://{}", listener.local_addr().unwrap()));
        listening.push(Listening {
            listener,
            router: router(mounts),
            envelope,
        });
    }
    let mut limits = Limits::of(&app.settings);
    limits.connections = connections;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let ended = tokio::spawn(async move { serve(listening, &app, stop, limits).await });
    Service {
        alone: urls.pop().unwrap(),
        both: urls.pop().unwrap(),
        shutdown,
        ended,
        _database: database,
    }
}

async fn send(method: &str, url: String, body: &'static str) -> Answer {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    answer(reqwest::Client::new().request(method, url).body(body)).await
}

#[tokio::test]
async fn whatever_goes_wrong_is_told_in_the_words_of_the_door() {
    let auth = ["--auth-enabled", "true", "--auth-secret-key", SECRET_KEY];
    let service = start(&auth, 100).await;
    let own = [
        ("GET", "/nowhere", "", 404, "no such path"),
        ("DELETE", "/take", "", 405, "no such method"),
        (
            "POST",
            "/take",
            "longer than ten",
            413,
            "the request body exceeds",
        ),
        ("GET", "/consume", "", 404, "Subscription not found"),
        ("GET", "/guarded", "", 401, "Invalid jwt token"),
        ("GET", "/panics", "", 500, "internal server error"),
    ];
    for prefix in [format!("{}/other", service.both), service.alone.clone()] {
        for (method, path, body, status, text) in own {
            let refused = send(method, format!("{prefix}{path}"), body).await;
            let refused = refused.expect(status);
            assert!(
                refused.body.starts_with(&format!("no: {text}")),
                "{path}: {}",
                refused.body
            );
            assert!(refused.header("x-request-id").is_some());
        }
        let challenged = send("GET", format!("{prefix}/guarded"), "").await;
        assert_eq!(challenged.header("www-authenticate"), Some("Bearer"));
        assert_eq!(
            send("POST", format!("{prefix}/take"), "ten")
                .await
                .expect(200)
                .body,
            "3 bytes"
        );
    }

    let native = [
        ("GET", "/nowhere", 404, "Not Found"),
        ("DELETE", "/liveness", 405, "Method Not Allowed"),
        ("GET", "/topics", 401, "Invalid jwt token"),
    ];
    for (method, path, status, text) in native {
        let refused = send(method, format!("{}{path}", service.both), "").await;
        let detail = serde_json::json!({"detail": text});
        assert_eq!(refused.expect(status).json(), detail);
    }
}

#[tokio::test]
async fn an_upgraded_connection_has_its_place_and_ends_with_the_server() {
    let service = start(&[], 1).await;
    let address = service.alone.trim_start_matches("http://").to_owned();
    let mut upgraded = TcpStream::connect(&address).await.unwrap();
    upgraded
        .write_all(
            b"GET /upgrade HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
        )
        .await
        .unwrap();
    let mut bytes = vec![0; 1024];
    let length = upgraded.read(&mut bytes).await.unwrap();
    assert!(bytes[..length].starts_with(b"HTTP/1.1 101 "));
    upgraded.write_all(b"hello").await.unwrap();
    upgraded.read_exact(&mut bytes[..5]).await.unwrap();
    assert_eq!(&bytes[..5], b"hello");

    let crowded = send("GET", format!("{}/consume", service.alone), "").await;
    assert!(
        crowded
            .expect(503)
            .body
            .starts_with("no: too many connections")
    );
    service.shutdown.cancel();
    let mut rest = String::new();
    upgraded.read_to_string(&mut rest).await.unwrap();
    drop(upgraded);

    assert_eq!(rest, "bye");
    service.ended.await.unwrap();
}

#[tokio::test]
async fn a_stream_is_a_request_until_it_ends_and_ends_with_the_server() {
    let service = start(&[], 100).await;
    let url = format!("{}/other/stream", service.both);
    let metrics = || send("GET", format!("{}/metrics", service.both), "");
    let counted = "path=\"/other/stream\",status=\"200\"} 1";
    let mut left = reqwest::get(&url).await.unwrap();
    assert_eq!(left.chunk().await.unwrap().unwrap(), "first\n");
    let shown = metrics().await.body;
    assert!(!shown.contains("/other/stream"), "{shown}");
    assert!(shown.contains("http_requests_in_progress 2"), "{shown}");

    drop(left);
    let begun = std::time::Instant::now();
    while !metrics().await.body.contains(counted) {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut stays = reqwest::get(&url).await.unwrap();
    assert_eq!(stays.chunk().await.unwrap().unwrap(), "first\n");
    service.shutdown.cancel();

    assert_eq!(stays.text().await.unwrap(), "last\n");
    service.ended.await.unwrap();
}
