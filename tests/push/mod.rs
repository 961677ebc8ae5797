//! Messages are sent to endpoints: real receivers on sockets, the whole service between them and Postgres.

mod breaker;
mod delivery;
mod endpoints;
mod order;
mod servers;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::support::TestApp;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A push as it arrived.
#[derive(Clone, Debug)]
pub struct Push {
    pub headers: HeaderMap,
    pub body: Value,
}

impl Push {
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

type Reply = Box<dyn Fn(&Push) -> Response + Send>;

struct Parts {
    pushes: Mutex<Vec<Push>>,
    /// What the next ones are answered; after that by `otherwise`.
    replies: Mutex<VecDeque<Response>>,
    otherwise: Mutex<Reply>,
    /// So many answers may be given; the others wait.
    answers: Semaphore,
    now: AtomicUsize,
    most: AtomicUsize,
}

/// An endpoint.
#[derive(Clone)]
pub struct Receiver {
    pub url: String,
    parts: Arc<Parts>,
    serving: Arc<Mutex<Option<AbortHandle>>>,
}

pub fn status(status: u16) -> Response {
    StatusCode::from_u16(status).unwrap().into_response()
}

impl Receiver {
    /// One that takes everything.
    pub async fn start() -> Self {
        let receiver = Self::held().await;
        receiver.answer(Semaphore::MAX_PERMITS / 2);
        receiver
    }

    /// One that answers nothing until it is told to.
    pub async fn held() -> Self {
        let parts = Arc::new(Parts {
            pushes: Mutex::default(),
            replies: Mutex::default(),
            otherwise: Mutex::new(Box::new(|_| status(204))),
            answers: Semaphore::new(0),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let receiver = Self {
            url,
            parts,
            serving: Arc::default(),
        };
        receiver.serve(listener);
        receiver
    }

    fn serve(&self, listener: TcpListener) {
        let router = Router::new()
            .fallback(take)
            .with_state(Arc::clone(&self.parts));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        *self.serving.lock().unwrap() = Some(serving.abort_handle());
    }

    /// Nobody listens at its address any more.
    pub fn die(&self) {
        self.serving.lock().unwrap().take().unwrap().abort();
    }

    /// It listens again.
    pub async fn revive(&self) {
        let address = self.url.split('/').nth(2).unwrap();
        self.serve(TcpListener::bind(address).await.unwrap());
    }

    pub fn answer(&self, pushes: usize) {
        self.parts.answers.add_permits(pushes);
    }

    /// Answer the next pushes so, each with one of them.
    pub fn reply(&self, replies: impl IntoIterator<Item = Response>) {
        self.parts.replies.lock().unwrap().extend(replies);
    }

    pub fn otherwise(&self, reply: impl Fn(&Push) -> Response + Send + 'static) {
        *self.parts.otherwise.lock().unwrap() = Box::new(reply);
    }

    pub fn pushes(&self) -> Vec<Push> {
        self.parts.pushes.lock().unwrap().clone()
    }

    /// The most that were here at a time.
    pub fn most(&self) -> usize {
        self.parts.most.load(Ordering::SeqCst)
    }

    /// Wait until so many have arrived.
    #[track_caller]
    pub fn arrived(&self, pushes: usize) -> impl Future<Output = Vec<Push>> {
        let receiver = self.clone();
        async move {
            eventually(format!("{pushes} pushes"), async || {
                let arrived = receiver.pushes();
                (arrived.len() >= pushes).then_some(arrived)
            })
            .await
        }
    }
}

async fn take(State(parts): State<Arc<Parts>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = String::from_utf8(body.to_vec()).unwrap();
    let push = Push {
        headers,
        body: serde_json::from_str(&text).unwrap(),
    };
    parts.pushes.lock().unwrap().push(push.clone());
    let now = parts.now.fetch_add(1, Ordering::SeqCst) + 1;
    parts.most.fetch_max(now, Ordering::SeqCst);
    parts.answers.acquire().await.unwrap().forget();
    parts.now.fetch_sub(1, Ordering::SeqCst);
    let reply = parts.replies.lock().unwrap().pop_front();
    reply.unwrap_or_else(|| (parts.otherwise.lock().unwrap())(&push))
}

/// Ask until there is an answer.
pub async fn eventually<T>(what: impl std::fmt::Display, ask: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} never came");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A topic `t` with a subscription `s` that is pushed to a receiver; what the creation said of push.
pub async fn subscribe(app: &TestApp, receiver: &Receiver, push: Value, fields: Value) -> Value {
    let mut setting = json!({"endpoint": receiver.url});
    setting
        .as_object_mut()
        .unwrap()
        .extend(push.as_object().unwrap().clone());
    app.topic_with_subscription("t", "s", fields).await;
    let set = sqlx::query_scalar(
        "select u.push::jsonb from pubsub.update_subscription('s', json_build_object('push', $1::json)) u",
    );
    let shown: Value = set.bind(setting).fetch_one(&app.pool()).await.unwrap();
    app.push.changed();
    shown
}

/// Publish payloads, each `{"n": ...}`; their ids.
pub async fn publish(app: &TestApp, payloads: impl IntoIterator<Item = usize>) -> Vec<String> {
    let messages: Vec<Value> = payloads
        .into_iter()
        .map(|n| json!({"payload": {"n": n}}))
        .collect();
    let published = app
        .post("/topics/t/publish", json!({"messages": messages}))
        .await
        .expect(201)
        .json();
    let ids = published["message_ids"].as_array().unwrap().iter();
    ids.map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// A count of the subscription `s`.
pub async fn count(app: &TestApp, name: &str) -> i64 {
    let counts = app.get("/subscriptions/s/metrics").await.expect(200).json();
    counts[name].as_i64().unwrap()
}

/// Wait until a count of the subscription `s` is so.
pub async fn counted(app: &TestApp, name: &str, expected: i64) {
    eventually(format!("{name} = {expected}"), async || {
        (count(app, name).await == expected).then_some(())
    })
    .await;
}

/// What happened to a message in the subscription `s`.
pub async fn events(app: &TestApp, id: &str) -> Vec<Value> {
    let timeline = app.get(&format!("/messages/{id}")).await.expect(200).json();
    let events = timeline["subscriptions"][0]["events"].as_array().unwrap();
    events.clone()
}

/// What the subscription `s` shows of its endpoint.
pub async fn endpoint(app: &TestApp) -> Value {
    sqlx::query_scalar("select push::jsonb from pubsub.get_subscription('s')")
        .fetch_one(&app.pool())
        .await
        .unwrap()
}

/// Let time pass for endpoints that are paused, and have the server look.
pub async fn end_pause(app: &TestApp) {
    sqlx::query(
        "update pubsub_data.push_endpoints set paused_until = clock_timestamp() \
         where paused_until < 'infinity'",
    )
    .execute(&app.pool())
    .await
    .unwrap();
    app.push.changed();
}
