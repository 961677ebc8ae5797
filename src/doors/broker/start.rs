//! Queues, topics and subscriptions come to be, with the settings of the door.

use serde_json::{Map, Value, json};

use super::names::{Kind, PREFIX, is_dead_letter_queue, place, subscription};
use crate::app::App;
use crate::config::broker::BrokerSettings;
use crate::db;
use crate::db::subscriptions::{NewSettings, NewSubscription, Subscription};
use crate::doors::reapply;
use crate::error::Error;

/// The longest wait before a retry, in seconds.
const BACKOFF_MAX_SECONDS: f64 = 3600.0;
/// Most pushes to an endpoint at a time, unless the subscription says how many.
const MAX_IN_FLIGHT: i32 = 10;
/// Of a queue whose messages are delivered for ever.
const UNLIMITED: i32 = i32::MAX;

/// Settings of what receives messages: of a dead-letter queue, or of others.
fn settings(broker: &BrokerSettings, is_dead_letter_queue: bool) -> Map<String, Value> {
    let attempts = if is_dead_letter_queue {
        UNLIMITED
    } else {
        broker.max_retries.saturating_add(1)
    };
    let backoff_min = f64::from(broker.backoff_base_ms) / 1000.0;
    let strategy = broker.backoff_strategy.name();
    named(attempts, strategy, backoff_min, BACKOFF_MAX_SECONDS)
}

/// The settings that the door has an opinion on, by their names.
fn named(
    max_delivery_attempts: i32,
    backoff_strategy: &str,
    backoff_min_seconds: f64,
    backoff_max_seconds: f64,
) -> Map<String, Value> {
    [
        ("max_delivery_attempts", json!(max_delivery_attempts)),
        ("backoff_strategy", json!(backoff_strategy)),
        ("backoff_min_seconds", json!(backoff_min_seconds)),
        ("backoff_max_seconds", json!(backoff_max_seconds)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect()
}

/// The id of the queue that the dead letters of a queue or topic go to; none of a dead-letter queue.
pub(super) fn dead_letter_queue_id(app: &App, kind: Kind, name: &str) -> Option<String> {
    let suffix = &app.settings.broker.dlq_suffix;
    if kind == Kind::Queue && is_dead_letter_queue(name, suffix) {
        return None;
    }
    Some(Kind::Queue.id(&format!("{name}{suffix}")))
}

/// Make a queue with its dead-letter queue, if there is none; whether there was none.
pub(super) async fn create_queue(app: &App, name: &str) -> Result<bool, Error> {
    let broker = &app.settings.broker;
    let dead_letters = dead_letter_queue_id(app, Kind::Queue, name);
    if let Some(id) = &dead_letters {
        create_dead_letter_queue(app, id).await?;
    }
    let settings = Value::Object(settings(broker, dead_letters.is_none()));
    let id = Kind::Queue.id(name);
    db::queues::create(&app.database, &id, &settings, dead_letters.as_deref()).await
}

async fn create_dead_letter_queue(app: &App, id: &str) -> Result<(), Error> {
    let settings = Value::Object(settings(&app.settings.broker, true));
    db::queues::create(&app.database, id, &settings, None).await?;
    Ok(())
}

/// Make a topic, if there is none; whether there was none.
pub(super) async fn create_topic(app: &App, name: &str) -> Result<bool, Error> {
    match db::topics::create(&app.database, &Kind::Topic.id(name), None, false).await {
        Ok(_) => Ok(true),
        Err(Error::Refused { status: 409, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A subscription to be.
pub(super) struct Wanted<'a> {
    /// The name of its topic.
    pub(super) topic: &'a str,
    /// The id that clients know.
    pub(super) id: &'a str,
    /// Of the routing keys of its messages.
    pub(super) pattern: &'a str,
    /// Where they are pushed to, if they are.
    pub(super) endpoint: Option<&'a str>,
    /// Most of them on their way at a time.
    pub(super) max_in_flight: Option<i32>,
}

/// Make a subscription, and what it needs, if there is none; whether there was none.
pub(super) async fn create_subscription(app: &App, wanted: &Wanted<'_>) -> Result<bool, Error> {
    let dead_letters = dead_letter_queue_id(app, Kind::Topic, wanted.topic);
    if let Some(id) = &dead_letters {
        create_dead_letter_queue(app, id).await?;
    }
    let mut others = settings(&app.settings.broker, false);
    others.insert("dead_letter_topic_id".to_owned(), json!(dead_letters));
    if let Some(endpoint) = wanted.endpoint {
        let most = wanted.max_in_flight.unwrap_or(MAX_IN_FLIGHT);
        others.insert("push".to_owned(), json!({"endpoint": endpoint}));
        others.insert("max_in_flight".to_owned(), json!(most));
    }
    let filter = filter_of(wanted.pattern).map(|filter| serde_json::value::to_raw_value(&filter));
    let filter = filter
        .transpose()
        .map_err(|error| Error::Internal(std::sync::Arc::new(error)))?;
    let new = NewSubscription {
        id: subscription(wanted.topic, wanted.id),
        topic_id: Kind::Topic.id(wanted.topic),
        settings: NewSettings { filter, others },
        start_from: None,
    };
    match db::subscriptions::create(&app.database, &new).await {
        Ok(_) => Ok(true),
        Err(Error::Refused { status: 409, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where the messages of a subscription are pushed to, if they are.
pub(super) fn endpoint_of(subscription: &Subscription) -> Option<String> {
    let push = serde_json::to_value(subscription.push.as_ref()?).ok()?;
    push.get("endpoint")?.as_str().map(str::to_owned)
}

/// Which messages a pattern lets pass; all if there is none.
fn filter_of(pattern: &str) -> Option<Value> {
    (pattern != "#")
        .then(|| json!({"attributes": {super::view::ROUTING_KEY: [{"routing-key": pattern}]}}))
}

/// The pattern of a subscription; that of all messages if its filter is none of ours.
pub(super) fn pattern_of(subscription: &Subscription) -> String {
    let filter = subscription
        .filter
        .as_ref()
        .and_then(|filter| serde_json::from_str::<Value>(filter.get()).ok());
    let pattern = filter.as_ref().and_then(|filter| {
        let keys = filter.get("attributes")?.get(super::view::ROUTING_KEY)?;
        keys.get(0)?.get("routing-key")?.as_str()
    });
    pattern.unwrap_or("#").to_owned()
}

/// What was made under other settings gets those of now.
///
/// # Errors
/// When the database fails.
pub async fn apply_settings(app: &App) -> Result<(), Error> {
    reapply::to_subscriptions(app, PREFIX, |subscription| {
        let Some(place) = place(&subscription.id) else {
            return Map::new();
        };
        let broker = &app.settings.broker;
        // what has nowhere to send its dead letters, such as a dead-letter queue of another DLQ_SUFFIX,
        // keeps its messages
        let is_last = dead_letter_queue_id(app, place.kind, place.name).is_none()
            || subscription.dead_letter_topic_id.is_none();
        let wanted = settings(broker, is_last);
        let now = named(
            subscription.max_delivery_attempts,
            &subscription.backoff_strategy,
            subscription.backoff_min_seconds,
            subscription.backoff_max_seconds,
        );
        if now == wanted { Map::new() } else { wanted }
    })
    .await
}
