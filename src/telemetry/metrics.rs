//! Prometheus metrics: requests, the connection pool, the process, each subscription's messages, and
//! the health of the database.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::db::database::Database;
use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use metrics_util::MetricKindMask;
use tokio::sync::Mutex;

use super::{doors, health, proxy, push, streams, totals};
use crate::config::Settings;
use crate::db;
use crate::db::subscriptions::SubscriptionMetrics;

/// Requests answered, by method, path (the route) and status.
pub const REQUESTS: &str = "http_requests_total";
/// Time to answer, by method and path.
pub const DURATION: &str = "http_request_duration_seconds";
/// Requests being answered.
pub const IN_PROGRESS: &str = "http_requests_in_progress";
/// Connections of the pool, by state.
pub const CONNECTIONS: &str = "database_pool_connections";
/// Messages of a subscription, by state.
pub const MESSAGES: &str = "pubsub_subscription_messages";

/// Upper bounds of the duration histogram, in seconds.
const BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Most subscriptions that are shown.
const MAX_SUBSCRIPTIONS: i32 = 1000;
/// How long what was read from the database is kept.
const READ_FOR: Duration = Duration::from_secs(15);
/// When the gauges of a deleted subscription go.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// Renders the metrics of this process.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    process: Arc<Collector>,
    read: Arc<Mutex<Read>>,
}

/// What was last read from the database, and when.
#[derive(Default)]
struct Read {
    at: Option<Instant>,
    /// What it says of totals.
    totals: String,
}

impl Metrics {
    /// Install the recorder. A process has one; later calls return it.
    ///
    /// # Errors
    /// When the recorder cannot be installed.
    pub fn install() -> Result<Self, String> {
        static INSTALLED: OnceLock<Result<Metrics, String>> = OnceLock::new();
        INSTALLED
            .get_or_init(|| {
                let handle = PrometheusBuilder::new()
                    .idle_timeout(MetricKindMask::GAUGE, Some(FORGOTTEN_AFTER))
                    .set_buckets_for_metric(Matcher::Full(DURATION.to_owned()), BUCKETS)
                    .and_then(|builder| {
                        let pushes = Matcher::Full(push::DURATION.to_owned());
                        builder.set_buckets_for_metric(pushes, BUCKETS)
                    })
                    .and_then(|builder| {
                        let latency = Matcher::Full(proxy::LATENCY.to_owned());
                        builder.set_buckets_for_metric(latency, BUCKETS)
                    })
                    .and_then(PrometheusBuilder::install_recorder)
                    .map_err(|error| error.to_string())?;
                describe_counter!(
                    REQUESTS,
                    "Total number of requests by method, path and status"
                );
                describe_histogram!(DURATION, "Time to answer a request, in seconds");
                describe_gauge!(IN_PROGRESS, "Requests being answered");
                describe_gauge!(CONNECTIONS, "Connections to the database, by state");
                describe_gauge!(MESSAGES, "Messages of a subscription, by state");
                let process = Arc::new(Collector::default());
                process.describe();
                doors::describe();
                streams::describe();
                push::describe();
                proxy::describe();
                Ok(Metrics {
                    handle,
                    process,
                    read: Arc::default(),
                })
            })
            .clone()
    }

    /// The metrics in Prometheus' text format.
    pub async fn render(&self, pool: &Database, settings: &Settings) -> String {
        let connections = pool.pool();
        let idle = u32::try_from(connections.num_idle()).unwrap_or(u32::MAX);
        gauge!(CONNECTIONS, "state" => "idle").set(idle);
        gauge!(CONNECTIONS, "state" => "used").set(connections.size().saturating_sub(idle));
        self.process.collect();
        streams::set_gauges();
        proxy::refresh();
        let totals = self.read_database(pool, settings).await;
        self.handle.run_upkeep();
        self.handle.render() + &totals
    }

    /// Scrapes within some seconds share what one of them read. What it says of totals is told here, not
    /// to the recorder, whose counters would outlive a subscription and could not begin anew with another
    /// one of its id.
    async fn read_database(&self, pool: &Database, settings: &Settings) -> String {
        let mut read = self.read.lock().await;
        if read.at.is_none_or(|at| at.elapsed() >= READ_FOR) {
            // together: each may wait for a database that is away
            let (counted, ()) = tokio::join!(count_messages(pool), health::set_gauges(pool));
            doors::set_dead_letters(&counted, &settings.broker.dlq_suffix);
            read.totals = totals::render(&counted);
            read.at = Some(Instant::now());
        }
        read.totals.clone()
    }
}

async fn count_messages(pool: &Database) -> Vec<SubscriptionMetrics> {
    match db::subscriptions::list_metrics(pool, Some(MAX_SUBSCRIPTIONS), "").await {
        Ok(subscriptions) => {
            for counts in &subscriptions {
                for (state, count) in [
                    ("available", counts.available),
                    ("delivered", counts.delivered),
                    ("scheduled", counts.scheduled),
                    ("parked", counts.parked),
                    ("acked", counts.acked),
                    ("dlq", counts.dlq),
                    ("expired", counts.expired),
                ] {
                    let subscription = counts.subscription_id.clone();
                    gauge!(MESSAGES, "subscription" => subscription, "state" => state)
                        .set(approximate(count));
                }
            }
            subscriptions
        }
        Err(error) => {
            tracing::warn!(error = %error, "counting messages failed");
            Vec::new()
        }
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a gauge is a float"
)]
pub(super) fn approximate(count: i64) -> f64 {
    count as f64
}
