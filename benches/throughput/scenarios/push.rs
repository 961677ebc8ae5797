//! Push: how many messages a second go to 200 endpoints whose receivers take 10 ms for each, and how long after
//! its publish one is there.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::unbounded_channel;

use crate::cluster::{Bench, Database};
use crate::crowd::{Crowd, Progress, Sample, median_sample};
use crate::http::Client;
use crate::loads::publish_path;
use crate::message::{publish_body, times};
use crate::meter::Meter;
use crate::open_loop::{Plan, listen, millis};
use crate::receivers::Receivers;
use crate::report::{Row, Target};
use crate::server::Server;

const ENDPOINTS: usize = 200;
const ANSWER_AFTER: Duration = Duration::from_millis(10);
/// Messages of a publish.
const BATCH: usize = 10;
/// As many as it takes that there is always something to send.
const PUBLISHERS: usize = 40;
/// Messages of each endpoint that are published and not taken, at most.
const AHEAD: u64 = 30;
/// How long what is left may take.
const GRACE: Duration = Duration::from_secs(60);
/// Messages a second where latency counts.
const RATE: u32 = 200;
const SETTINGS: [&str; 2] = ["--push-allowed-networks", "127.0.0.0/8"];

/// Who is sent what.
#[derive(Clone, Copy)]
enum Shape {
    /// Each endpoint has messages of its own.
    TopicEach,
    /// All have the same.
    OneTopic,
}

impl Shape {
    fn topics(self) -> usize {
        match self {
            Self::TopicEach => ENDPOINTS,
            Self::OneTopic => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::TopicEach => "a topic each",
            Self::OneTopic => "all of one topic",
        }
    }
}

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let mut rows = Vec::new();
    for shape in [Shape::TopicEach, Shape::OneTopic] {
        let mut samples = Vec::new();
        for round in 1..=bench.flags.rounds {
            let sample = throughput(bench, shape).await;
            eprintln!("         round {round}: {:>8.0} messages/s", sample.rate);
            samples.push(sample);
        }
        let sample = median_sample(&samples);
        rows.push(Row {
            target: Some(Target::at_least(sample.rate, 2000.0, "/s")),
            note: "receivers that answer after 10 ms".to_owned(),
            cost: Some(sample.cost),
            ..Row::new(
                format!("push to {ENDPOINTS} endpoints, {}", shape.name()),
                sample.rate,
                "msg/s",
            )
        });
    }
    rows.push(latency(bench).await);
    rows
}

/// Topics `main-0` and so on, and a subscription for each endpoint.
async fn create(database: &Database, topics: usize, endpoints: &[SocketAddr]) {
    let mut sql = String::new();
    for topic in 0..topics {
        write!(sql, "select pubsub.create_topic('{}');", self::topic(topic)).unwrap();
    }
    for (number, endpoint) in endpoints.iter().enumerate() {
        let topic = self::topic(number % topics);
        write!(
            sql,
            "select pubsub.create_subscription('push-{number}', '{topic}'); \
             select pubsub.set_push('push-{number}', 'http://{endpoint}/');"
        )
        .unwrap();
    }
    database.execute(&sql).await;
}

fn topic(number: usize) -> String {
    match number {
        0 => "main".to_owned(),
        _ => format!("main-{number}"),
    }
}

async fn throughput(bench: &Bench, shape: Shape) -> Sample {
    let database = bench.cluster.database().await;
    let mut crowd = Crowd::default();
    let progress = crowd.progress().clone();
    let taken = progress.clone();
    let receivers = Receivers::start(ENDPOINTS, ANSWER_AFTER, move |_: &[u8]| taken.add(1)).await;
    create(&database, shape.topics(), &receivers.addresses).await;
    let server = Server::start_with(bench, &database, &SETTINGS).await;
    let mut meter = Meter::new(&bench.cluster, &[&server]).await;
    let published = Arc::new(AtomicU64::new(0));
    for number in 0..PUBLISHERS {
        let (address, published) = (server.address, Arc::clone(&published));
        crowd.spawn(|progress| publish(address, shape, number, published, progress));
    }
    let sample = crowd
        .measure(&mut meter, bench.flags.warm_up() * 4, bench.flags.round())
        .await;
    let since = Instant::now();
    let published = published.load(Ordering::Relaxed);
    while progress.done() < published {
        let is_late = since.elapsed() > GRACE;
        assert!(!is_late, "only {} of {published} taken", progress.done());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // and none of them twice
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(progress.done(), published);
    server.stop().await;
    bench.cluster.drop(database).await;
    sample
}

/// Publish as fast as it is taken, to one topic after the other.
async fn publish(
    address: SocketAddr,
    shape: Shape,
    number: usize,
    published: Arc<AtomicU64>,
    progress: Progress,
) {
    let mut client = Client::connect(address).await;
    let body = publish_body(BATCH);
    let topics: Vec<String> = (0..shape.topics())
        .filter(|topic| shape.topics() == 1 || topic % PUBLISHERS == number)
        .map(topic)
        .collect();
    let copies = (BATCH * ENDPOINTS / shape.topics()) as u64;
    for topic in topics.iter().cycle() {
        while published.load(Ordering::Relaxed) >= progress.done() + AHEAD * ENDPOINTS as u64 {
            if progress.stopped() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if progress.stopped() {
            return;
        }
        published.fetch_add(copies, Ordering::Relaxed);
        client.post(&publish_path(topic), &body).await;
    }
}

async fn latency(bench: &Bench) -> Row {
    let database = bench.cluster.database().await;
    let (arrived, mut arrivals) = unbounded_channel();
    let take = move |request: &[u8]| {
        for sent in times(request) {
            let _over = arrived.send((sent, Instant::now()));
        }
    };
    let receivers = Receivers::start(1, Duration::ZERO, take).await;
    create(&database, 1, &receivers.addresses).await;
    let server = Server::start_with(bench, &database, &SETTINGS).await;
    let plan = Plan {
        address: server.address,
        rate: RATE,
        length: bench.flags.round() * 2,
        publishers: 16,
        consumers: 0,
        pause: Duration::ZERO,
        leave_every: 0,
    };
    let warm_up = Plan {
        length: bench.flags.warm_up(),
        ..plan
    };
    listen(warm_up, &mut arrivals).await;
    let latencies = listen(plan, &mut arrivals).await;
    server.stop().await;
    bench.cluster.drop(database).await;
    let median = millis(&latencies, 0.5);
    Row {
        note: format!(
            "p99 {:.1} ms, {} messages, one endpoint that answers at once",
            millis(&latencies, 0.99),
            latencies.len()
        ),
        ..Row::new(
            format!("push, from publish to the receiver at {RATE}/s"),
            median,
            "ms p50",
        )
    }
}
