//! What tests stand on: a service on a free port with its own database, and a client for it.

pub mod clock;
pub mod database;
pub mod documented;
pub mod hostile;
pub mod pooler;
pub mod random;

use std::time::Duration;

use clap::Parser;
use fastpubsub::app::App;
use fastpubsub::config::Settings;
use fastpubsub::db::database::Database;
use fastpubsub::db::pooler::{Sessions, probe};
use fastpubsub::doors;
use fastpubsub::doors::serve::{Limits, serve};
use fastpubsub::push::Push;
use fastpubsub::telemetry::metrics::Metrics;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use database::TestDatabase;
use pooler::Pooler;

/// Long enough for a signing key.
pub const SECRET_KEY: &str = "a test key that is longer than 32 bytes";

/// The service, in this process, over a real socket and a database of its own.
pub struct TestApp {
    pub url: String,
    /// Where one door alone is, if a flag says so.
    pub alone: Option<String>,
    pub database: TestDatabase,
    /// What sends messages to endpoints.
    pub push: Push,
    client: reqwest::Client,
    token: Option<String>,
    shutdown: CancellationToken,
}

/// `transaction` or `session`: the services of the tests reach their database through a pgbouncer.
const POOLER: &str = "FASTPUBSUB_TEST_POOLER";

impl TestApp {
    /// With default settings.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With flags, such as `--api-max-body-bytes 2048`.
    pub async fn start_with(flags: &[&str]) -> Self {
        Self::start_on(TestDatabase::create().await, flags).await
    }

    /// With authentication on; requests carry the token of a client with these scopes.
    pub async fn start_with_auth(scopes: &str) -> Self {
        let flags = ["--auth-enabled", "true", "--auth-secret-key", SECRET_KEY];
        let mut app = Self::start_with(&flags).await;
        app.token = Some(app.token_for(scopes).await);
        app
    }

    /// Over an existing database: a second server beside the first.
    pub async fn start_on(database: TestDatabase, flags: &[&str]) -> Self {
        Self::start_limited(database, flags, |_| {}).await
    }

    /// Over an existing database, with other limits for connections.
    pub async fn start_limited(
        database: TestDatabase,
        flags: &[&str],
        change: impl FnOnce(&mut Limits),
    ) -> Self {
        let pooler = match std::env::var(POOLER) {
            Ok(mode) => Some(Pooler::start(&database, &mode, "default_pool_size = 5").await),
            Err(_) => None,
        };
        Self::start_through(database, pooler, flags, change).await
    }

    /// Over an existing database, perhaps through a pooler, with other limits for connections.
    pub async fn start_through(
        database: TestDatabase,
        pooler: Option<Pooler>,
        flags: &[&str],
        change: impl FnOnce(&mut Limits),
    ) -> Self {
        let settings = settings(flags);
        let mut limits = Limits::of(&settings);
        change(&mut limits);
        let pool = match &pooler {
            Some(pooler) => {
                let sessions = probe(&pooler.options()).await.unwrap();
                Database::new(&settings, pooler.options(), sessions)
            }
            None => Database::new(&settings, database.options(), Sessions::Own),
        };
        let app = App::new(settings, pool, Metrics::install().unwrap());
        doors::prepare(&app).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut listening = vec![doors::listening(listener, &app)];
        let mut alone = None;
        for entrance in doors::entrances(&app.settings) {
            if entrance.which != doors::Which::All {
                let listener = TcpListener::bind(entrance.address).await.unwrap();
                alone = Some(format!("http://{}", listener.local_addr().unwrap()));
                listening.push(entrance.which.open(listener, &app));
            }
        }
        let shutdown = CancellationToken::new();
        let push = app.push.clone();
        let pushing = tokio::spawn(doors::push(app.clone(), shutdown.clone()));
        let ended = shutdown.clone();
        tokio::spawn(async move {
            serve(listening, &app, ended, limits).await;
            let _ended = pushing.await;
            // its drain needs the database
            drop(pooler);
        });
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        Self {
            url,
            alone,
            database,
            push,
            client,
            token: None,
            shutdown,
        }
    }

    /// Let the service end, as a signal does.
    pub fn stop(&self) {
        self.shutdown.cancel();
    }

    /// A connection on which little fits.
    pub async fn narrow(&self) -> TcpStream {
        let address = self.url.trim_start_matches("http://").parse().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(address).await.unwrap()
    }

    /// Let time pass for what is leased or waits: what is due within it is due now.
    pub async fn pass_seconds(&self, seconds: f64) {
        for statement in [
            "update pubsub_data.deliveries set leased_at = leased_at - make_interval(secs => $1), \
             visible_at = greatest(visible_at - make_interval(secs => $1), \
             least(visible_at, clock_timestamp()))",
            "update pubsub_data.runs set leased_at = leased_at - make_interval(secs => $1), \
             ack_deadline = greatest(ack_deadline - make_interval(secs => $1), \
             least(ack_deadline, clock_timestamp())) where lease is not null",
            "update pubsub_data.wakeups set due_at = greatest(due_at - make_interval(secs => $1), \
             least(due_at, clock_timestamp()))",
            "update pubsub_data.counters set due_at = due_at - make_interval(secs => $1)",
        ] {
            sqlx::query(statement)
                .bind(seconds)
                .execute(&self.pool())
                .await
                .unwrap();
        }
    }

    /// A pool on the database of the service.
    pub fn pool(&self) -> Database {
        self.database.pool()
    }

    /// A new client with these scopes: its id and secret, written straight to the database.
    pub async fn client_with(&self, scopes: &str) -> (String, String) {
        use fastpubsub::auth::secrets;
        use fastpubsub::db::clients::{ClientSettings, create};

        let (id, secret) = (uuid::Uuid::now_v7(), secrets::generate(16));
        let settings = ClientSettings {
            name: "test".to_owned(),
            scopes: scopes.to_owned(),
            is_active: None,
        };
        create(&self.pool(), id, &settings, &secrets::hash(&secret), None)
            .await
            .unwrap();
        (id.to_string(), secret)
    }

    /// An API key of a new client with these scopes.
    pub async fn api_key_for(&self, scopes: &str) -> String {
        use fastpubsub::auth::{api_keys, secrets};
        use fastpubsub::db::clients::{ClientSettings, create};

        let key = api_keys::generate();
        let settings = ClientSettings {
            name: "test".to_owned(),
            scopes: scopes.to_owned(),
            is_active: None,
        };
        let (id, secret) = (uuid::Uuid::now_v7(), secrets::hash("secret"));
        let hash = secrets::hash(&key);
        create(&self.pool(), id, &settings, &secret, Some(&hash))
            .await
            .unwrap();
        key
    }

    /// A token for a new client with these scopes.
    pub async fn token_for(&self, scopes: &str) -> String {
        let (id, secret) = self.client_with(scopes).await;
        let body = json!({"client_id": id, "client_secret": secret});
        let token = self.post("/oauth/token", body).await.expect(201).json();
        token["access_token"].as_str().unwrap().to_owned()
    }

    /// The same service, called with another token, or with none.
    pub fn with_token(&self, token: Option<&str>) -> Caller<'_> {
        Caller {
            app: self,
            token: token.map(str::to_owned),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.with_token(self.token.as_deref()).get(path).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.with_token(self.token.as_deref()).delete(path).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.with_token(self.token.as_deref())
            .post(path, body)
            .await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.with_token(self.token.as_deref()).put(path, body).await
    }

    /// A request to shape by hand.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.with_token(self.token.as_deref()).request(method, path)
    }

    /// A topic and a subscription to it, with more fields for the subscription.
    pub async fn topic_with_subscription(&self, topic: &str, subscription: &str, fields: Value) {
        self.post("/topics", json!({"id": topic})).await.expect(201);
        let mut body = json!({"id": subscription, "topic_id": topic});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        self.post("/subscriptions", body).await.expect(201);
    }

    /// Consume up to 100 messages.
    pub async fn consume(&self, subscription: &str) -> Vec<Value> {
        let path = format!("/subscriptions/{subscription}/messages?consumer_id=c&batch_size=100");
        self.get(&path).await.expect(200).json()["data"]
            .as_array()
            .unwrap()
            .clone()
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Calls the service with one token.
pub struct Caller<'a> {
    app: &'a TestApp,
    token: Option<String>,
}

impl Caller<'_> {
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send("PATCH", path, Some(body)).await
    }

    /// A request to shape by hand.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("{}{path}", self.app.url);
        let request = self.app.client.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    }
}

/// Send a request that was shaped by hand. The answer must be a documented one.
pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    answer_at("", request).await
}

/// As [`answer`], of a door that is alone where the request goes, though else it is behind `mount`.
pub async fn answer_at(mount: &str, request: reqwest::RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.unwrap();
    let path = format!("{mount}{}", request.url().path());
    let method = request.method().clone();
    let answer = answer_of(client, request).await;
    documented::check(method.as_str(), &path, answer.status, &answer.body);
    answer
}

/// Send a request, whatever is documented.
pub async fn answer_of(client: reqwest::Client, request: reqwest::Request) -> Answer {
    let response = client.execute(request).await.unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.text().await.unwrap(),
    }
}

/// What the service answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Answer {
    /// Fail unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Settings from flags.
pub fn settings(flags: &[&str]) -> Settings {
    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        settings: Settings,
    }
    let flags = ["test"].iter().chain(flags);
    Flags::try_parse_from(flags)
        .unwrap()
        .settings
        .check()
        .unwrap()
}

/// The ids of messages, in order.
pub fn ids(messages: &[Value]) -> Vec<Value> {
    messages
        .iter()
        .map(|message| message["id"].clone())
        .collect()
}
