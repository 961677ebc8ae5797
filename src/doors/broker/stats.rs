//! How many messages there are, and were.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::caller::Allowed;
use super::names::{self, Kind, PREFIX, TOPICS, place};
use super::openapi::{Errors, NotFound};
use super::start::dead_letter_queue_id;
use crate::app::App;
use crate::auth::scopes::BrokerConsume;
use crate::db;
use crate::db::Page;
use crate::db::subscriptions::SubscriptionMetrics;
use crate::error::{Error, found};

/// Topics that are read in one call.
const PAGE: i32 = 1000;
/// Whoever may ask for everything may not ask for it at will: others wait.
static TURNS: Semaphore = Semaphore::const_new(2);

/// Counts of a queue, or of a subscription of a topic.
#[derive(Serialize, ToSchema)]
pub(super) struct Counts {
    /// Messages that can be pulled now.
    ready: i64,
    /// Messages that were pulled and not settled.
    in_flight: i64,
    /// Messages that wait for a retry, or for their delay.
    scheduled: i64,
    /// Messages in the dead-letter queue, which the subscriptions of a topic share.
    dlq: i64,
    /// Messages that were published, since ever.
    published: i64,
    /// Deliveries, since ever.
    delivered: i64,
    /// Messages that were acked, since ever.
    acked: i64,
    /// Deliveries that were nacked, since ever.
    nacked: i64,
    /// Deliveries that were not the first of their message, since ever.
    retries: i64,
}

impl Counts {
    fn of(metrics: &SubscriptionMetrics, dlq: i64) -> Self {
        Self {
            ready: metrics.available,
            in_flight: metrics.delivered,
            scheduled: metrics.scheduled,
            dlq: dlq + metrics.dlq,
            published: metrics.totals.published,
            delivered: metrics.totals.delivered,
            acked: metrics.totals.acked,
            nacked: metrics.totals.nacked,
            retries: metrics.totals.redelivered,
        }
    }
}

/// Counts of a queue.
#[derive(Serialize, ToSchema)]
pub(super) struct QueueStats {
    /// The queue.
    #[schema(example = "payments")]
    queue: String,
    #[serde(flatten)]
    counts: Counts,
}

/// Counts of a topic.
#[derive(Serialize, ToSchema)]
pub(super) struct TopicStats {
    /// The topic.
    #[schema(example = "orders")]
    topic: String,
    /// By their ids.
    subscriptions: Vec<SubscriptionStats>,
}

/// Counts of a subscription.
#[derive(Serialize, ToSchema)]
pub(super) struct SubscriptionStats {
    /// The subscription.
    #[schema(example = "sub-5d41402abc4b")]
    subscription_id: String,
    #[serde(flatten)]
    counts: Counts,
}

/// See how many messages a queue has, and had
#[utoipa::path(get, path = "/queues/{name}/stats", tag = "queues",
    params(("name" = String, Path)),
    responses((status = 200, body = QueueStats), NotFound, Errors))]
pub(super) async fn queue_stats(
    Allowed { name, .. }: Allowed<BrokerConsume>,
    State(app): State<App>,
) -> Result<Json<QueueStats>, Error> {
    let metrics = db::subscriptions::metrics(&app.database, &Kind::Queue.id(&name)).await;
    let metrics = Kind::Queue.known(&name, metrics)?;
    let dlq = dead_letters(&app, Kind::Queue, &name).await?;
    Ok(Json(QueueStats {
        queue: name,
        counts: Counts::of(&metrics, dlq),
    }))
}

/// See how many messages the subscriptions of a topic have, and had
#[utoipa::path(get, path = "/topics/{name}/stats", tag = "topics",
    params(("name" = String, Path)),
    responses((status = 200, body = TopicStats), NotFound, Errors))]
pub(super) async fn topic_stats(
    Allowed { name, .. }: Allowed<BrokerConsume>,
    State(app): State<App>,
) -> Result<Json<TopicStats>, Error> {
    let topic = db::topics::get(&app.database, &Kind::Topic.id(&name)).await;
    Kind::Topic.known(&name, topic)?;
    let prefix = names::subscription(&name, "");
    let metrics = db::subscriptions::list_metrics(&app.database, None, &prefix).await?;
    let dlq = dead_letters(&app, Kind::Topic, &name).await?;
    let of = |metrics: &SubscriptionMetrics| {
        let subscription_id = metrics.subscription_id.strip_prefix(&prefix)?;
        Some(SubscriptionStats {
            subscription_id: subscription_id.to_owned(),
            counts: Counts::of(metrics, dlq),
        })
    };
    let subscriptions = metrics.iter().filter_map(of).collect();
    Ok(Json(TopicStats {
        topic: name,
        subscriptions,
    }))
}

/// How many messages the dead-letter queue of something has.
async fn dead_letters(app: &App, kind: Kind, name: &str) -> Result<i64, Error> {
    let Some(id) = dead_letter_queue_id(app, kind, name) else {
        return Ok(0);
    };
    let metrics = found(db::subscriptions::metrics(&app.database, &id).await)?;
    Ok(metrics.map_or(0, |metrics| metrics.backlog()))
}

/// Counts of all queues and topics.
#[derive(Serialize, ToSchema)]
pub(super) struct AllStats {
    /// By name.
    queues: BTreeMap<String, QueueSummary>,
    /// By name.
    topics: BTreeMap<String, TopicSummary>,
}

/// A queue, in short.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct QueueSummary {
    /// Messages that can be pulled now.
    ready: i64,
    /// Messages that were pulled and not settled.
    in_flight: i64,
    /// Messages in its dead-letter queue.
    dlq: i64,
}

/// A topic, in short.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct TopicSummary {
    /// How many subscriptions it has.
    subscriptions: i64,
    /// Messages that can be pulled now, each for every subscription that has it.
    ready: i64,
    /// Messages that were pulled and not settled.
    in_flight: i64,
}

/// See how many messages all queues and topics have
#[utoipa::path(get, path = "/stats", tag = "service", responses((status = 200, body = AllStats), Errors))]
pub(super) async fn all_stats(State(app): State<App>) -> Result<Json<AllStats>, Error> {
    let _turn = TURNS.acquire().await;
    let metrics = db::subscriptions::list_metrics(&app.database, None, PREFIX).await?;
    let backlogs: BTreeMap<&str, i64> = metrics
        .iter()
        .map(|metrics| (metrics.subscription_id.as_str(), metrics.backlog()))
        .collect();
    let mut queues = BTreeMap::new();
    let mut topics: BTreeMap<String, TopicSummary> = topic_names(&app)
        .await?
        .into_iter()
        .map(|name| (name, TopicSummary::default()))
        .collect();
    for metrics in &metrics {
        let Some(place) = place(&metrics.subscription_id) else {
            continue;
        };
        if place.kind == Kind::Topic {
            let topic = topics.entry(place.name.to_owned()).or_default();
            topic.subscriptions += 1;
            topic.ready += metrics.available;
            topic.in_flight += metrics.delivered;
            continue;
        }
        let dlq = dead_letter_queue_id(&app, Kind::Queue, place.name);
        let dlq = dlq.and_then(|id| backlogs.get(id.as_str()).copied());
        let summary = QueueSummary {
            ready: metrics.available,
            in_flight: metrics.delivered,
            dlq: dlq.unwrap_or_default() + metrics.dlq,
        };
        queues.insert(place.name.to_owned(), summary);
    }
    Ok(Json(AllStats { queues, topics }))
}

/// The names of all topics.
async fn topic_names(app: &App) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let mut after = TOPICS.to_owned();
    loop {
        let page = Page {
            offset: 0,
            limit: PAGE,
            after: Some(after),
        };
        let topics = db::topics::list(&app.database, page, None).await?;
        let ours = topics
            .iter()
            .map_while(|topic| topic.id.strip_prefix(TOPICS));
        names.extend(ours.map(str::to_owned));
        match topics.last() {
            Some(last) if last.id.starts_with(TOPICS) => after = last.id.clone(),
            _ => return Ok(names),
        }
    }
}
