//! `make bench`: publish and consume + ack over HTTP, beside a plain INSERT of the same payload through
//! the same Postgres, in the same run. Rounds are interleaved and medians are reported, so that the
//! ratios mean something on a machine whose speed drifts.
#![expect(clippy::unwrap_used, reason = "a program for developers")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use fastpubsub::app::App;
use fastpubsub::config::Settings;
use fastpubsub::db;
use fastpubsub::http::serve::serve;
use fastpubsub::postgres::Embedded;
use fastpubsub::telemetry::metrics::Metrics;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(4);
const PAYLOAD_BYTES: usize = 300;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

#[derive(Clone, Copy)]
enum Scenario {
    Insert,
    Publish,
    ConsumeAndAck,
}

/// What is measured: what, messages per call, concurrent clients.
const SCENARIOS: [(&str, Scenario, usize, usize); 6] = [
    (
        "plain INSERT, 1 a statement, 8 clients",
        Scenario::Insert,
        1,
        8,
    ),
    (
        "publish, 1 a request, 64 connections",
        Scenario::Publish,
        1,
        64,
    ),
    (
        "consume + ack, 1 a request, 32 consumers",
        Scenario::ConsumeAndAck,
        1,
        32,
    ),
    (
        "plain INSERT, 100 a statement, 4 clients",
        Scenario::Insert,
        100,
        4,
    ),
    (
        "publish, 100 a request, 8 connections",
        Scenario::Publish,
        100,
        8,
    ),
    (
        "consume + ack, 100 a request, 4 consumers",
        Scenario::ConsumeAndAck,
        100,
        4,
    ),
];

#[tokio::main]
async fn main() {
    let directory = std::env::temp_dir().join(format!("fastpubsub-bench-{}", std::process::id()));
    let embedded = Embedded::start(&directory, None, true).await.unwrap();
    let options = embedded.options().unwrap();
    let address = start_service(&options).await;

    let mut rates = vec![Vec::new(); SCENARIOS.len()];
    for round in 1..=ROUNDS {
        for (scenario, rates) in SCENARIOS.iter().zip(&mut rates) {
            let rate = measure(*scenario, &options, &address).await;
            eprintln!("round {round}: {:>9.0} messages/s  {}", rate, scenario.0);
            rates.push(rate);
        }
    }

    embedded.stop().await.unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    report(&mut rates);
}

fn report(rates: &mut [Vec<f64>]) {
    println!("| scenario | messages/s (median of {ROUNDS}) | of plain INSERT |\n|---|---|---|");
    let mut reference = 1.0;
    for ((name, scenario, ..), rates) in SCENARIOS.iter().zip(rates) {
        rates.sort_by(f64::total_cmp);
        let median = rates.get(rates.len() / 2).copied().unwrap();
        if matches!(scenario, Scenario::Insert) {
            reference = median;
        }
        println!("| {name} | {median:.0} | {:.2} |", median / reference);
    }
}

/// The service, with default settings but as many connections as consumers, and a raw table.
async fn start_service(options: &PgConnectOptions) -> String {
    let mut connection = db::connect(options).await.unwrap();
    db::schema::migrate(&mut connection).await.unwrap();
    sqlx::raw_sql(
        "create table public.raw (id bigint generated always as identity primary key, payload jsonb); \
         select pubsub.create_topic('bench'); \
         select pubsub.create_subscription('bench', 'bench'); \
         select pubsub.make_partitions('messages', 3600)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let settings = Flags::parse_from(["bench"]).settings;
    let app = App::new(
        settings.clone(),
        db::pool(&settings, options.clone()),
        Metrics::install().unwrap(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(serve(listener, app, CancellationToken::new()));
    address
}

/// Messages a second of one scenario.
async fn measure(
    (_, scenario, batch, clients): (&str, Scenario, usize, usize),
    options: &PgConnectOptions,
    address: &str,
) -> f64 {
    if matches!(scenario, Scenario::ConsumeAndAck) {
        refill(options).await;
    }
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let deadline = started + ROUND;
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let (options, address, done) = (options.clone(), address.to_owned(), Arc::clone(&done));
            tokio::spawn(async move {
                match scenario {
                    Scenario::Insert => insert(options, batch, deadline, &done).await,
                    Scenario::Publish => publish(&address, batch, deadline, &done).await,
                    Scenario::ConsumeAndAck => consume(&address, batch, deadline, &done).await,
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let messages = u32::try_from(done.load(Ordering::Relaxed)).unwrap();
    f64::from(messages) / started.elapsed().as_secs_f64()
}

/// More messages than a round can consume.
async fn refill(options: &PgConnectOptions) {
    let mut connection = db::connect(options).await.unwrap();
    loop {
        let backlog: i64 =
            sqlx::query_scalar("select count(*) from pubsub_data.deliveries where lease is null")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        if backlog > 600_000 {
            break;
        }
        publish_in_sql(&mut connection).await;
    }
}

async fn publish_in_sql(connection: &mut PgConnection) {
    sqlx::query(
        "select count(*) from pubsub.publish_messages('bench', array_fill($1::jsonb, array[1000]))",
    )
    .bind(sqlx::types::Json(payload()))
    .execute(&mut *connection)
    .await
    .unwrap();
}

fn payload() -> serde_json::Value {
    serde_json::json!({"country": "BR", "n": 1, "pad": "x".repeat(PAYLOAD_BYTES - 35)})
}

async fn insert(options: PgConnectOptions, batch: usize, deadline: Instant, done: &AtomicU64) {
    let mut connection = options.connect().await.unwrap();
    let payloads = vec![sqlx::types::Json(payload()); batch];
    while Instant::now() < deadline {
        sqlx::query("insert into public.raw (payload) select unnest($1::jsonb[])")
            .bind(&payloads)
            .execute(&mut connection)
            .await
            .unwrap();
        done.fetch_add(u64::try_from(batch).unwrap(), Ordering::Relaxed);
    }
    connection.close().await.unwrap();
}

async fn publish(address: &str, batch: usize, deadline: Instant, done: &AtomicU64) {
    let mut client = Client::connect(address).await;
    let body = serde_json::to_string(&vec![payload(); batch]).unwrap();
    while Instant::now() < deadline {
        client
            .send("POST", "/topics/bench/messages", &body, "204")
            .await;
        done.fetch_add(u64::try_from(batch).unwrap(), Ordering::Relaxed);
    }
}

async fn consume(address: &str, batch: usize, deadline: Instant, done: &AtomicU64) {
    let mut client = Client::connect(address).await;
    let path = format!("/subscriptions/bench/messages?consumer_id=c&batch_size={batch}");
    while Instant::now() < deadline {
        let answer = client.send("GET", &path, "", "200").await;
        let answer: serde_json::Value = serde_json::from_slice(answer).unwrap();
        let messages = answer.get("data").and_then(|data| data.as_array()).unwrap();
        let receipts: Vec<_> = messages
            .iter()
            .filter_map(|message| message.get("receipt"))
            .collect();
        let body = serde_json::to_string(&receipts).unwrap();
        client
            .send("POST", "/subscriptions/bench/acks", &body, "204")
            .await;
        done.fetch_add(u64::try_from(receipts.len()).unwrap(), Ordering::Relaxed);
    }
}

/// A client that costs little: it shares two cores with what it measures.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// The body of the answer, whose status must be this one.
    async fn send(&mut self, method: &str, path: &str, body: &str, status: &str) -> &[u8] {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.unwrap();
            assert!(read > 0, "the server closed the connection");
            let Some(end) = self
                .buffer
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            else {
                continue;
            };
            let head = std::str::from_utf8(self.buffer.get(..end).unwrap()).unwrap();
            assert_eq!(head.split(' ').nth(1), Some(status), "{head}");
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if self.buffer.len() >= end + 4 + length {
                return self.buffer.get(end + 4..).unwrap();
            }
        }
    }
}
