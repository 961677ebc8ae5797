//! One load of a round, and the database of the round.

use super::loads::{Door, Kind, Load};
use crate::cluster::{Bench, Database};
use crate::crowd::{Crowd, Sample};
use crate::meter::Meter;
use crate::peers::Pgmq;
use crate::server::Server;
use crate::sql::{self, Queue};
use crate::{fill, loads};

/// More than any machine consumes one by one, in messages a second.
const MOST: f64 = 40_000.0;

/// The topics and queues of a new database: no round meets what another left behind.
pub(in super::super) async fn prepare(database: &Database, pgmq: Option<&Pgmq>) {
    for (name, batch) in [("single", 1), ("hundred", 100), ("drain", 100)] {
        for name in [name.to_owned(), format!("sql-{name}")] {
            fill::create(database, &name).await;
            fill::consume_first(database, &name, &[&name], batch).await;
        }
    }
    for topic in ["fan-out", "sql-fan-out"] {
        fan_out(database, topic).await;
    }
    if let Some(pgmq) = pgmq {
        pgmq.install(database).await;
        for name in ["sql-single", "sql-hundred", "sql-drain"] {
            fill::create_queue(database, name).await;
        }
        for number in 0..10 {
            fill::create_queue(database, &format!("sql-fan-out-{number}")).await;
        }
    }
}

/// A topic of ten subscriptions. Of the one over SQL none filters: queues of pgmq do not.
async fn fan_out(database: &Database, topic: &str) {
    fill::create_topic(database, topic).await;
    let names: Vec<String> = (0..10).map(|number| format!("{topic}-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        // messages come from BR and US by turns
        let country = if number % 4 == 0 { "BR" } else { "US" };
        let filter = format!(r#"{{"country": ["{country}", "JP"]}}"#);
        let filter = (topic == "fan-out" && number % 2 == 0).then_some(filter.as_str());
        fill::create_subscription(database, name, topic, filter).await;
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    fill::consume_first(database, topic, &names, 100).await;
}

pub(in super::super) async fn one(
    bench: &Bench,
    load: &Load,
    database: &Database,
    server: &Server,
    meter: &mut Meter,
) -> Sample {
    let flags = &bench.flags;
    let drained = flags.size(500_000, 200_000);
    let enough = (flags.round() + flags.warm_up()).as_secs_f64() * MOST;
    match load.kind {
        Kind::Consume(name) => publish(load.door, database, name, enough as u64).await,
        Kind::Drain(name) | Kind::SettleAndPull(name) => {
            publish(load.door, database, name, drained).await;
        }
        Kind::Insert | Kind::Publish(_) | Kind::FanOut(_) => {}
    }
    let mut crowd = Crowd::default();
    for _ in 0..load.clients {
        match load.door {
            Door::Http => over_http(&mut crowd, load, server),
            Door::Sql => over_sql(&mut crowd, load, database.clone(), Queue::Fastpubsub),
            Door::Pgmq => over_sql(&mut crowd, load, database.clone(), Queue::Pgmq),
        }
    }
    if matches!(load.kind, Kind::Drain(_) | Kind::SettleAndPull(_)) {
        return crowd.finish(meter, drained).await;
    }
    let sample = crowd.measure(meter, flags.warm_up(), flags.round()).await;
    assert!(
        !matches!(load.kind, Kind::Consume(_)) || sample.rate < MOST,
        "the backlog ran out"
    );
    sample
}

/// Makes a backlog.
async fn publish(door: Door, database: &Database, name: &str, messages: u64) {
    match door {
        Door::Pgmq => fill::send(database, name, messages).await,
        Door::Http | Door::Sql => fill::publish(database, name, messages).await,
    }
}

/// One more client.
fn over_http(crowd: &mut Crowd, load: &Load, server: &Server) {
    let (address, batch) = (server.address, load.batch);
    match load.kind {
        Kind::Publish(topic) | Kind::FanOut(topic) => {
            crowd.spawn(|progress| loads::publish(address, topic, batch, progress));
        }
        Kind::Consume(name) | Kind::Drain(name) => {
            crowd.spawn(|progress| loads::consume(address, name, batch, progress));
        }
        Kind::SettleAndPull(name) => {
            crowd.spawn(|progress| loads::settle_and_pull(address, name, batch, progress));
        }
        Kind::Insert => unreachable!("no route only stores"),
    }
}

/// One more client.
fn over_sql(crowd: &mut Crowd, load: &Load, database: Database, queue: Queue) {
    let batch = load.batch;
    match load.kind {
        Kind::Insert => crowd.spawn(|progress| sql::insert(database, batch, progress)),
        Kind::Publish(name) => {
            let statement = queue.publish(batch);
            crowd.spawn(|progress| sql::publish(database, statement, name, batch, progress));
        }
        Kind::FanOut(name) => {
            let statement = queue.fan_out();
            crowd.spawn(|progress| sql::publish(database, statement, name, batch, progress));
        }
        Kind::Consume(name) | Kind::Drain(name) => {
            crowd.spawn(|progress| sql::consume(database, queue, name, batch, progress));
        }
        Kind::SettleAndPull(_) => unreachable!("a request of the server"),
    }
}
