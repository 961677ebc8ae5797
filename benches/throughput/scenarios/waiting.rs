//! How long after a publish a waiting consumer has the message: from the moment at which the publish
//! is sent, so with the publish itself.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::cluster::Bench;
use crate::fill;
use crate::http::Client;
use crate::open_loop::{histogram, millis};
use crate::report::{Row, Target};
use crate::server::Server;

/// Others that wait on the same server, each on a connection of its own.
const OTHERS: usize = 2000;
const PULL: &str = "/subscriptions/main/pull";
const PULL_BODY: &[u8] = br#"{"consumer_id": "waits", "max_messages": 1, "wait_seconds": 30}"#;
const OTHERS_PULL: &str = "/subscriptions/others/pull";

/// Who publishes.
enum Publisher {
    Server(Client),
    Psql(sqlx::PgConnection),
}

impl Publisher {
    async fn publish(&mut self) {
        match self {
            Self::Server(client) => {
                client.post("/topics/main/messages", b"[{}]").await;
            }
            Self::Psql(connection) => {
                sqlx::query("select pubsub.publish_messages('main', array['{}'::jsonb])")
                    .execute(connection)
                    .await
                    .unwrap();
            }
        }
    }
}

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let database = bench.cluster.database().await;
    fill::create(&database, "main").await;
    fill::create(&database, "others").await;
    let server = Server::start(bench, &database).await;
    let other = Server::start(bench, &database).await;
    let length = bench.flags.round();
    let mut rows = Vec::new();

    let here = Publisher::Server(Client::connect(server.address).await);
    let latencies = waits(&server, here, length).await;
    rows.push(row("the same server", &latencies, 2.0));
    let there = Publisher::Server(Client::connect(other.address).await);
    let latencies = waits(&server, there, length).await;
    rows.push(row("another server", &latencies, 50.0));
    let psql = Publisher::Psql(database.connect().await);
    let latencies = waits(&server, psql, length).await;
    rows.push(row("psql", &latencies, 50.0));

    let mut others = JoinSet::new();
    for _ in 0..OTHERS {
        let mut client = Client::connect(server.address).await;
        others.spawn(async move {
            loop {
                client.post(OTHERS_PULL, PULL_BODY).await;
            }
        });
    }
    // so many do not come at once
    tokio::time::sleep(length / 4).await;
    let here = Publisher::Server(Client::connect(server.address).await);
    let latencies = waits(&server, here, length).await;
    rows.push(row(
        "the same server, beside 2,000 others that wait",
        &latencies,
        2.0,
    ));
    others.shutdown().await;

    server.stop().await;
    other.stop().await;
    bench.cluster.drop(database).await;
    rows
}

/// One message at a time: wait for it, publish it, have it.
async fn waits(server: &Server, mut publisher: Publisher, length: Duration) -> Histogram<u64> {
    let mut latencies = histogram();
    let mut consumer = Client::connect(server.address).await;
    let ends = Instant::now() + length;
    while Instant::now() < ends {
        // the consumer waits well before the publish
        let pull = tokio::spawn(async move {
            let answer = consumer.post(PULL, PULL_BODY).await;
            assert!(answer.len() > 20, "{}", String::from_utf8_lossy(answer));
            let receipt = receipt(answer);
            (consumer, receipt, Instant::now())
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
        let published_at = Instant::now();
        publisher.publish().await;
        let (client, receipt, received_at) = pull.await.unwrap();
        consumer = client;
        let micros = (received_at - published_at).as_micros();
        latencies.saturating_record(u64::try_from(micros).unwrap());
        let acks = format!("[\"{receipt}\"]");
        consumer
            .post("/subscriptions/main/acks", acks.as_bytes())
            .await;
    }
    latencies
}

fn receipt(answer: &[u8]) -> String {
    let answer: serde_json::Value = serde_json::from_slice(answer).unwrap();
    answer["messages"][0]["receipt"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn row(publisher: &str, latencies: &Histogram<u64>, limit: f64) -> Row {
    let median = millis(latencies, 0.5);
    Row {
        target: Some(Target::at_most(median, limit, "ms")),
        note: format!(
            "median; 99 %: {:.1} ms, {} messages",
            millis(latencies, 0.99),
            latencies.len()
        ),
        ..Row::new(
            format!("waiting pull, published by {publisher}"),
            median,
            "ms",
        )
    }
}
