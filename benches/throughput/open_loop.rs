//! A load at a fixed rate, whatever the service does, and how long messages take under it.
//!
//! A latency counts from the moment when the message should have been sent: a service that stalls
//! cannot hide it by holding up the sender (no coordinated omission).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::http::Client;
use crate::loads::{Consumer, publish_path};
use crate::message::{attempts, stamp, timed_body, times};

/// How long consumers may take for what is left when publishing ends.
const GRACE: Duration = Duration::from_secs(10);
/// Parts of the run, to see whether latency grows.
pub(crate) const PARTS: usize = 10;

/// What is published to topic `main` and consumed from subscription `main`.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) rate: u32,
    pub(crate) length: Duration,
    pub(crate) publishers: usize,
    pub(crate) consumers: usize,
    /// Between two polls, when the first found nothing.
    pub(crate) pause: Duration,
    /// Each so manieth message is marked with `leave`; 0 for none.
    pub(crate) leave_every: u64,
}

pub(crate) struct Outcome {
    /// Messages that were delivered a second, while it was published.
    pub(crate) rate: f64,
    /// Microseconds from intended send to receipt, by part of the run.
    parts: Vec<Histogram<u64>>,
}

impl Outcome {
    /// Milliseconds of a quantile over the whole run.
    pub(crate) fn millis(&self, quantile: f64) -> f64 {
        let mut all = histogram();
        for part in &self.parts {
            all.add(part).unwrap();
        }
        millis(&all, quantile)
    }

    /// Milliseconds of a quantile in the first and in the last part.
    pub(crate) fn ends(&self, quantile: f64) -> (f64, f64) {
        let millis = |part| millis(part, quantile);
        (millis(&self.parts[0]), millis(&self.parts[PARTS - 1]))
    }
}

pub(crate) fn histogram() -> Histogram<u64> {
    // up to half an hour, in microseconds
    Histogram::new_with_bounds(1, 1_800_000_000, 3).unwrap()
}

pub(crate) fn millis(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

/// What publishers and consumers share.
#[derive(Clone)]
struct Run {
    plan: Plan,
    /// Time 0 of what messages carry.
    start: Instant,
    received: Arc<AtomicU64>,
}

impl Plan {
    /// How many messages are published.
    fn total(&self) -> u64 {
        (self.length.as_secs_f64() * f64::from(self.rate)) as u64
    }
}

/// Begins to publish; the publishers end with nothing.
fn begin<T: Send + 'static>(plan: Plan) -> (Run, JoinSet<Option<T>>, JoinHandle<()>) {
    let run = Run {
        plan,
        start: Instant::now() + Duration::from_millis(200),
        received: Arc::default(),
    };
    let (due, to_send) = unbounded_channel();
    let to_send = Arc::new(Mutex::new(to_send));
    let mut clients = JoinSet::new();
    for _ in 0..plan.publishers {
        let publisher = publish(run.clone(), Arc::clone(&to_send));
        clients.spawn(async {
            publisher.await;
            None
        });
    }
    let start = run.start;
    let pacer = std::thread::spawn(move || pace(plan, start, &due));
    (run, clients, pacer)
}

/// What arrives without being asked for: the time that a message carries, and when it came.
pub(crate) type Arrival = (u64, Instant);

/// Microseconds from intended send to arrival, of all messages. Nobody consumes.
pub(crate) async fn listen(
    plan: Plan,
    arrivals: &mut UnboundedReceiver<Arrival>,
) -> Histogram<u64> {
    let (run, publishers, pacer) = begin::<()>(plan);
    let ends = run.start + plan.length + GRACE;
    let mut latencies = histogram();
    while latencies.len() < plan.total() {
        let arrival = tokio::time::timeout_at(ends.into(), arrivals.recv()).await;
        let (sent, at) = arrival.expect("messages do not come").unwrap();
        let micros = at.duration_since(run.start).as_micros() as u64;
        latencies.record(micros.saturating_sub(sent)).unwrap();
    }
    publishers.join_all().await;
    pacer.join().expect("the pacer failed");
    latencies
}

pub(crate) async fn run(plan: Plan) -> Outcome {
    // consumers end with what they found
    let (run, mut clients, pacer) = begin(plan);
    for _ in 0..plan.consumers {
        let consumer = consume(run.clone());
        clients.spawn(async { Some(consumer.await) });
    }
    let start = run.start;

    let (mut publishing, mut rate) = (plan.publishers, 0.0);
    let mut parts = vec![histogram(); PARTS];
    while let Some(ended) = clients.join_next().await {
        match ended.expect("a client failed") {
            None => {
                publishing -= 1;
                if publishing == 0 {
                    let received = run.received.load(Ordering::Relaxed) as f64;
                    rate = received / start.elapsed().as_secs_f64();
                }
            }
            Some(found) => {
                for (part, found) in parts.iter_mut().zip(found) {
                    part.add(found).unwrap();
                }
            }
        }
    }
    pacer.join().expect("the pacer failed");
    Outcome { rate, parts }
}

/// Says when each message is due, on a thread of its own: the timers of the runtime are too coarse.
fn pace(plan: Plan, start: Instant, due: &UnboundedSender<(u64, bool)>) {
    for number in 0..plan.total() {
        let offset = Duration::from_micros(number * 1_000_000 / u64::from(plan.rate));
        std::thread::sleep((start + offset).saturating_duration_since(Instant::now()));
        let leave = plan.leave_every > 0 && number % plan.leave_every == 0;
        if due.send((offset.as_micros() as u64, leave)).is_err() {
            // the publishers failed, and say so
            return;
        }
    }
}

async fn publish(run: Run, to_send: Arc<Mutex<UnboundedReceiver<(u64, bool)>>>) {
    let mut client = Client::connect(run.plan.address).await;
    let mut request = client.prepare(&publish_path("main"), &timed_body());
    loop {
        // let go of the queue before the request
        let due = to_send.lock().await.recv().await;
        let Some((micros, leave)) = due else { return };
        stamp(&mut request, micros, leave);
        client.send(&request).await;
    }
}

async fn consume(run: Run) -> Vec<Histogram<u64>> {
    let mut parts = vec![histogram(); PARTS];
    let length = run.plan.length.as_micros() as u64;
    let client = Client::connect(run.plan.address).await;
    let mut consumer = Consumer::new(client, "main", 100);
    loop {
        let answer = consumer.consume().await;
        let now = run.start.elapsed().as_micros() as u64;
        for (sent, attempt) in times(answer).zip(attempts(answer)) {
            // a second delivery is no fresh message
            if attempt == 1 {
                parts[part(sent, length)].record(now - sent).unwrap();
                run.received.fetch_add(1, Ordering::Relaxed);
            }
        }
        if consumer.ack().await == 0 {
            let over = run.start.elapsed();
            let complete = run.received.load(Ordering::Relaxed) >= run.plan.total();
            if over > run.plan.length && (complete || over > run.plan.length + GRACE) {
                return parts;
            }
            tokio::time::sleep(run.plan.pause).await;
        }
    }
}

fn part(sent: u64, length: u64) -> usize {
    ((sent * PARTS as u64 / length) as usize).min(PARTS - 1)
}
