//! What there is of queues.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use chrono::Utc;
use serde::Serialize;
use utoipa::ToSchema;

use super::PREFIX;
use super::caller::{Allowed, Caller, Queue};
use super::openapi::Errors;
use super::pages::{Health, healthy};
use super::view::time;
use crate::app::App;
use crate::auth::scopes::PyqueueRead;
use crate::config::pyqueue::keys::Permission;
use crate::db;
use crate::db::subscriptions::SubscriptionMetrics;
use crate::error::{Error, found};

/// How many messages a queue has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) available: i64,
    in_flight: i64,
    all: i64,
}

impl Counts {
    fn of(metrics: &SubscriptionMetrics) -> Self {
        Self {
            available: metrics.available,
            in_flight: metrics.delivered,
            all: metrics.backlog(),
        }
    }
}

/// Of a queue; none of anything where there is no such queue.
pub(super) async fn counts(app: &App, queue: &Queue) -> Result<Counts, Error> {
    let metrics = found(db::subscriptions::metrics(&app.database, &queue.id()).await)?;
    Ok(metrics.as_ref().map(Counts::of).unwrap_or_default())
}

/// A queue.
#[derive(Serialize, ToSchema)]
pub(super) struct Info {
    /// Its name.
    #[schema(example = "orders")]
    queue_name: String,
    /// How many messages it has.
    message_count: i64,
    /// How many can be received now.
    available_messages: i64,
    /// How many are received and not deleted.
    in_flight_messages: i64,
    /// How many bytes they have; beyond 10000 messages an estimate.
    queue_size_bytes: i64,
    /// When it came to be; null where it does not exist.
    #[schema(required = true, format = DateTime)]
    created_timestamp: Option<String>,
    /// When the newest message was added; null where there was none.
    #[schema(required = true, format = DateTime)]
    last_modified: Option<String>,
}

/// See how many messages a queue has; an absent one has none
#[utoipa::path(get, path = "/queues/{queue_name}/info", tag = "queues",
    params(("queue_name" = String, Path)), responses((status = 200, body = Info), Errors))]
pub(super) async fn info(
    Allowed { queue, .. }: Allowed<PyqueueRead>,
    State(app): State<App>,
) -> Result<Json<Info>, Error> {
    let counts = counts(&app, &queue).await?;
    let summary = found(db::queues::summary(&app.database, &queue.id()).await)?;
    Ok(Json(Info {
        queue_name: queue.0,
        message_count: counts.all,
        available_messages: counts.available,
        in_flight_messages: counts.in_flight,
        queue_size_bytes: summary.as_ref().map_or(0, |summary| summary.bytes),
        created_timestamp: summary.as_ref().map(|summary| time(summary.created_at.0)),
        last_modified: summary
            .and_then(|summary| summary.last_published_at)
            .map(|at| time(at.0)),
    }))
}

/// See whether a queue can be used
#[utoipa::path(get, path = "/queues/{queue_name}/health", tag = "queues",
    params(("queue_name" = String, Path)), responses((status = 200, body = Health), Errors))]
pub(super) async fn health(
    Allowed { queue, .. }: Allowed<PyqueueRead>,
    State(app): State<App>,
) -> Result<Json<Health>, Error> {
    healthy(&app, Some(queue.0)).await
}

/// A queue of the list.
#[derive(Serialize, ToSchema)]
pub(super) struct Listed {
    /// Its name.
    #[schema(example = "orders")]
    queue_name: String,
    /// How many messages it has.
    message_count: i64,
    /// How many can be received now.
    available_messages: i64,
    /// How many are received and not deleted.
    in_flight_messages: i64,
    /// What the key may do with it.
    permissions: Vec<&'static str>,
}

/// The queues of a key.
#[derive(Serialize, ToSchema)]
pub(super) struct Queues {
    /// By name.
    queues: Vec<Listed>,
    /// How many there are.
    count: usize,
    /// What the key is for.
    api_key_description: String,
}

/// List the queues of the key: all there are, or those that it names
#[utoipa::path(get, path = "/queues", tag = "queues",
    responses((status = 200, body = Queues), Errors))]
pub(super) async fn list_queues(
    caller: Caller,
    State(app): State<App>,
) -> Result<Json<Queues>, Error> {
    let mut queues: BTreeMap<String, Counts> = caller
        .named()
        .into_iter()
        .filter(|name| !name.ends_with('*'))
        .map(|name| (name, Counts::default()))
        .collect();
    for metrics in db::subscriptions::list_metrics(&app.database, None, PREFIX).await? {
        let queue = metrics.subscription_id.strip_prefix(PREFIX);
        let may = |queue: &&str| !caller.permissions(queue).is_empty();
        if let Some(queue) = queue.filter(may) {
            queues.insert(queue.to_owned(), Counts::of(&metrics));
        }
    }
    let queues: Vec<Listed> = queues
        .into_iter()
        .map(|(queue, counts)| Listed {
            message_count: counts.all,
            available_messages: counts.available,
            in_flight_messages: counts.in_flight,
            permissions: caller
                .permissions(&queue)
                .into_iter()
                .map(Permission::name)
                .collect(),
            queue_name: queue,
        })
        .collect();
    Ok(Json(Queues {
        count: queues.len(),
        queues,
        api_key_description: caller.description(&app).await?,
    }))
}

/// Now.
pub(super) fn now() -> String {
    time(Utc::now())
}
