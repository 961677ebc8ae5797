//! Subscriptions that do not match must not cost much.

use std::time::{Duration, Instant};

use crate::cluster::Bench;
use crate::crowd::{median, millis};
use crate::fill::{create, create_subscription, create_topic, publish};
use crate::http::Client;
use crate::loads::publish_path;
use crate::message::publish_body;
use crate::report::{Row, Target};
use crate::server::Server;

/// A topic with one subscription, and one with 99 more, whose filters match nothing.
const TOPICS: [&str; 2] = ["few", "many"];

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    bench.cluster.set_autovacuum(false).await;
    let database = bench.cluster.database().await;
    for topic in TOPICS {
        create(&database, topic).await;
    }
    for number in 0..99 {
        let filter = format!(r#"{{"country": ["nowhere-{number}"]}}"#);
        create_subscription(&database, &format!("none-{number}"), "many", Some(&filter)).await;
    }
    let server = Server::start(bench, &database).await;
    let mut client = Client::connect(server.address).await;
    let mut rows = Vec::new();
    for batch in [1, 100] {
        let mut rounds = [Vec::new(), Vec::new()];
        // the first round is the warm-up
        for round in 0..=bench.flags.rounds {
            for (topic, rounds) in TOPICS.iter().zip(&mut rounds) {
                let p50 = publish_p50(&mut client, topic, batch, bench.flags.round() / 2).await;
                rounds.extend((round > 0).then_some(p50));
            }
        }
        let [few, many] = rounds.map(median);
        let ratio = many / few;
        rows.push(Row {
            of_reference: Some(ratio),
            target: Some(Target::at_most(ratio, 3.0, "x")),
            note: format!("1 subscription: {few:.2} ms"),
            ..Row::new(
                format!("publish, {batch} a request, 100 subscriptions of which 1 matches"),
                many,
                "ms p50",
            )
        });
    }
    drop(client);
    server.stop().await;
    bench.cluster.drop(database).await;
    rows
}

/// Milliseconds of a publish, one after the other.
async fn publish_p50(client: &mut Client, topic: &str, batch: usize, length: Duration) -> f64 {
    let body = publish_body(batch);
    client.post(&publish_path(topic), &body).await;
    let started = Instant::now();
    let mut took = Vec::new();
    while started.elapsed() < length {
        let sent = Instant::now();
        client.repeat().await;
        took.push(millis(sent));
    }
    median(took)
}

/// `GET /metrics` of a thousand subscriptions with a hundred messages each. Counts are kept for some
/// seconds, so each request is the first of a new server.
pub(crate) async fn metrics(bench: &Bench) -> Vec<Row> {
    let database = bench.cluster.database().await;
    for topic in 0..10 {
        let topic = format!("topic-{topic}");
        create_topic(&database, &topic).await;
        database
            .execute(&format!(
                "select pubsub.create_subscription('{topic}-' || n, '{topic}') \
                 from generate_series(1, 100) n"
            ))
            .await;
        publish(&database, &topic, 100).await;
    }
    let mut took = Vec::new();
    for _ in 0..bench.flags.rounds {
        let server = Server::start(bench, &database).await;
        let mut client = Client::connect(server.address).await;
        let started = Instant::now();
        let answer = client.get("/metrics").await;
        took.push(millis(started));
        let text = String::from_utf8_lossy(answer);
        assert!(text.contains("topic-9-100"), "a subscription is missing");
        drop(client);
        server.stop().await;
    }
    bench.cluster.drop(database).await;
    let p50 = median(took);
    vec![Row {
        target: Some(Target::at_most(p50, 200.0, "ms")),
        note: "counted anew".to_owned(),
        ..Row::new("GET /metrics, 1,000 subscriptions", p50, "ms p50")
    }]
}
