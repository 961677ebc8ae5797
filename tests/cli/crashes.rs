//! Postgres is killed while messages are held: none is lost, none that was acked comes back, and no
//! receipt of before the crash settles anything after it. Nor does anything come back that was taken.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::sync::oneshot;

use super::{PATIENCE, Sandbox, Server};

const ACK_DEADLINE: Duration = Duration::from_secs(2);
const PUBLISHED: usize = 60;
const ACKED: usize = 20;
const HELD: usize = 30;

/// A message by its number: the receipt of its latest delivery, and how many there were.
type Deliveries = HashMap<u64, (String, u64)>;

#[tokio::test]
async fn claims_that_were_on_disk_outlive_a_crash_until_their_deadline() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve(&[]).await;
    let (held, acked) = claim(&server).await;
    // the commit of a publish takes all before it to the disk
    publish(&server, PUBLISHED..PUBLISHED + 1).await;
    let claimed = Instant::now();

    crash(&sandbox, &server).await;

    let first = first_deliveries_after(&server, &held, &acked, PUBLISHED + 1 - ACKED).await;
    let redelivered = |number: &u64| {
        let (at, attempts) = first[number];
        let waited = at.duration_since(claimed);
        (attempts, waited + Duration::from_secs(1) >= ACK_DEADLINE)
    };
    for number in held.keys() {
        assert_eq!(redelivered(number), (2, true), "{number}");
    }
}

#[tokio::test]
async fn claims_that_were_not_yet_on_disk_are_undone_by_a_crash() {
    // the writer of the log may wake up between a claim and the crash, but not always
    for _ in 0..3 {
        let undone = undone_by_crash().await;
        if undone == HELD {
            return;
        }
        assert_eq!(undone, 0, "a part of one claim");
    }
    panic!("no crash undid a claim");
}

/// How many messages of a claim right before a crash are delivered again as if it had not been.
async fn undone_by_crash() -> usize {
    let sandbox = Sandbox::new();
    let server = serve_with_a_slow_log(&sandbox).await;
    let (held, acked) = claim(&server).await;

    crash(&sandbox, &server).await;

    let first = first_deliveries_after(&server, &held, &acked, PUBLISHED - ACKED).await;
    held.keys().filter(|number| first[number].1 == 1).count()
}

/// What does not ask for it is not on disk for a while.
async fn serve_with_a_slow_log(sandbox: &Sandbox) -> Server<'_> {
    let server = sandbox.serve(&[]).await;
    let mut connection = connect(sandbox).await;
    sqlx::query("alter system set wal_writer_delay = '10s'")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    server.stop().await;
    sandbox.serve(&[]).await
}

#[tokio::test]
async fn what_was_taken_does_not_come_back_after_a_crash() {
    let sandbox = Sandbox::new();
    let server = serve_with_a_slow_log(&sandbox).await;
    create(&server).await;
    publish(&server, 0..10 * PUBLISHED).await;
    let (enough, is_enough) = oneshot::channel();
    let mut enough = Some(enough);
    let mut taken = HashSet::new();

    let takes = async {
        loop {
            let pull = json!({"consumer_id": "c", "max_messages": 3, "auto_ack": true});
            let answer = server.post("/subscriptions/s/pull", pull).await;
            if answer.status != 200 {
                return;
            }
            for message in answer.json()["messages"].as_array().unwrap() {
                let number = message["payload"]["n"].as_u64().unwrap();
                assert!(taken.insert(number), "{number} was taken twice");
            }
            if taken.len() >= PUBLISHED
                && let Some(enough) = enough.take()
            {
                enough.send(()).unwrap();
            }
            if taken.len() > 9 * PUBLISHED {
                return;
            }
        }
    };
    let crashes = async {
        is_enough.await.unwrap();
        crash(&sandbox, &server).await;
    };
    tokio::join!(takes, crashes);

    let mut left = HashSet::new();
    loop {
        let more = consume(&server, 100).await;
        if more.is_empty() {
            break;
        }
        left.extend(more.into_keys());
    }
    assert_eq!(taken.intersection(&left).count(), 0, "came back");
    let lost = 10 * PUBLISHED - taken.len() - left.len();
    assert!(
        lost == 0 || lost == 3,
        "more than the one that was not answered: {lost}"
    );
}

async fn connect(sandbox: &Sandbox) -> PgConnection {
    let socket = sandbox.data_dir.display().to_string().replace('/', "%2F");
    let url = format!("postgresql://postgres@{socket}/fastpubsub");
    PgConnection::connect(&url).await.unwrap()
}

async fn publish(server: &Server<'_>, numbers: std::ops::Range<usize>) {
    let messages: Vec<Value> = numbers.map(|number| json!({"n": number})).collect();
    let path = "/topics/t/messages";
    server.post(path, json!(messages)).await.expect(204);
}

async fn consume(server: &Server<'_>, batch_size: usize) -> Deliveries {
    let path = format!("/subscriptions/s/messages?consumer_id=c&batch_size={batch_size}");
    let answer = server.get(&path).await.expect(200).json();
    let messages = answer["data"].as_array().unwrap().iter();
    messages
        .map(|message| {
            let receipt = message["receipt"].as_str().unwrap().to_owned();
            let attempts = message["delivery_attempts"].as_u64().unwrap();
            let number = message["payload"]["n"].as_u64().unwrap();
            (number, (receipt, attempts))
        })
        .collect()
}

async fn ack(server: &Server<'_>, receipts: impl Iterator<Item = &String>) {
    let receipts: Vec<&String> = receipts.collect();
    let path = "/subscriptions/s/acks";
    server.post(path, json!(receipts)).await.expect(204);
}

async fn count(server: &Server<'_>, state: &str) -> u64 {
    let metrics = server.get("/subscriptions/s/metrics").await.expect(200);
    metrics.json()[state].as_u64().unwrap()
}

/// Publish, ack some and then hold others, which are returned with the numbers of those.
async fn claim(server: &Server<'_>) -> (Deliveries, HashSet<u64>) {
    create(server).await;
    publish(server, 0..PUBLISHED).await;
    let acked = consume(server, ACKED).await;
    ack(server, acked.values().map(|(receipt, _)| receipt)).await;
    let held = consume(server, HELD).await;
    assert_eq!((acked.len(), held.len()), (ACKED, HELD));
    (held, acked.into_keys().collect())
}

async fn create(server: &Server<'_>) {
    server.post("/topics", json!({"id": "t"})).await.expect(201);
    let subscription = json!({
        "id": "s", "topic_id": "t", "ack_deadline_seconds": ACK_DEADLINE.as_secs(),
    });
    server
        .post("/subscriptions", subscription)
        .await
        .expect(201);
}

/// Kill all of Postgres at one stroke and wait until the server has started another one.
async fn crash(sandbox: &Sandbox, server: &Server<'_>) {
    let postmaster = sandbox.postgres().unwrap();
    // a stopped one starts no child
    kill(postmaster, Signal::SIGSTOP).unwrap();
    for pid in children(postmaster) {
        // a child may have ended meanwhile
        let _gone = kill(pid, Signal::SIGKILL);
    }
    kill(postmaster, Signal::SIGKILL).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let is_back = || sandbox.postgres().is_some_and(|pid| pid != postmaster);
    while !is_back() || server.get("/readiness").await.status != 200 {
        assert!(Instant::now() < deadline, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn children(parent: Pid) -> Vec<Pid> {
    // at once: whoever lives on meanwhile writes the log to the disk
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    children
        .split_whitespace()
        .map(|pid| Pid::from_raw(pid.parse().unwrap()))
        .collect()
}

/// Consume and ack all that is left: when each came first, and as which delivery. Receipts of before
/// the crash must settle none of it.
async fn first_deliveries_after(
    server: &Server<'_>,
    held: &Deliveries,
    acked: &HashSet<u64>,
    left: usize,
) -> HashMap<u64, (Instant, u64)> {
    let mut first = HashMap::new();
    // some of the backlog may be leased until its deadline
    let deadline = Instant::now() + ACK_DEADLINE + Duration::from_secs(10);
    while first.len() < left {
        assert!(Instant::now() < deadline, "{} of {left} came", first.len());
        let deliveries = consume(server, 10).await;
        let before = count(server, "acked").await;
        let old = deliveries.keys().filter_map(|number| held.get(number));
        ack(server, old.map(|(receipt, _)| receipt)).await;
        assert_eq!(count(server, "acked").await, before, "by old receipts");
        ack(server, deliveries.values().map(|(receipt, _)| receipt)).await;
        for (number, (_, attempts)) in deliveries {
            assert!(!acked.contains(&number), "{number} came after its ack");
            let again = first.insert(number, (Instant::now(), attempts));
            assert_eq!(again, None, "{number} came after its ack");
        }
    }
    let settled = u64::try_from(left + acked.len()).unwrap();
    assert_eq!(count(server, "acked").await, settled);
    for state in ["available", "delivered", "scheduled", "dlq"] {
        assert_eq!(count(server, state).await, 0, "{state}");
    }
    first
}
