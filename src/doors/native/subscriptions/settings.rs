//! Settings in request bodies of topics and subscriptions: what a new one has beside what the Python
//! original knows, and changing one. What a setting may be, the SQL functions decide: their refusal
//! names the field.

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::scopes::{SubscriptionsUpdate, TopicsPublish, TopicsUpdate};
use crate::db;
use crate::db::subscriptions::Subscription;
use crate::db::topics::Topic;
use crate::doors::body;
use crate::doors::caller::{Caller, Grants};
use crate::doors::extract::{JsonBytes, PathId};
use crate::doors::fields::Fields;
use crate::doors::given;
use crate::doors::native::filters;
use crate::doors::native::openapi::{CommonErrors, NotFound, TooLarge};
use crate::doors::native::subscriptions::push::{self, ChangePush};
use crate::doors::tree::{parse_json, raw_field};
use crate::error::Error;

/// Longest retention and expiry, a year.
pub const YEAR_SECONDS: i32 = 31_536_000;
const MOST_IN_FLIGHT: i32 = 1_000_000;
const MOST_A_SECOND: i32 = 1_000_000;

/// New settings of a topic; those left out stay.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"message_retention_seconds": 604800}))]
pub struct UpdateTopic {
    /// How long messages are kept for replay; null: as long as the server keeps them.
    #[schema(minimum = 0, maximum = 31_536_000)]
    message_retention_seconds: Option<i32>,
}

/// New settings of a subscription; those left out stay, null takes one back.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"max_delivery_attempts": 10, "ack_deadline_seconds": 120}))]
pub struct UpdateSubscription {
    /// For messages published from now on; null lets every message pass.
    #[schema(value_type = Option<Object>)]
    filter: Option<Value>,
    /// Deliveries of a message before it is dead-lettered.
    #[schema(minimum = 1, maximum = 2_147_483_647, nullable = false)]
    max_delivery_attempts: Option<i32>,
    /// First wait before a retry.
    #[schema(minimum = 0.001, maximum = 2_147_483_647, nullable = false)]
    backoff_min_seconds: Option<f64>,
    /// Longest wait before a retry, at least `backoff_min_seconds`.
    #[schema(minimum = 0.001, maximum = 2_147_483_647, nullable = false)]
    backoff_max_seconds: Option<f64>,
    /// How the wait grows from retry to retry: `fixed`, `linear` or `exponential`.
    #[schema(pattern = "^(fixed|linear|exponential)$", nullable = false)]
    backoff_strategy: Option<String>,
    /// How long a delivery is leased; null: the server's default.
    #[schema(minimum = 1, maximum = 43200)]
    ack_deadline_seconds: Option<i32>,
    /// Hand messages of one ordering key out one after the other.
    #[schema(nullable = false)]
    enable_ordering: Option<bool>,
    /// What happens to a key whose message is spent: `dead_letter`, `park` or `skip`.
    #[schema(pattern = "^(dead_letter|park|skip)$", nullable = false)]
    ordering_failure: Option<String>,
    /// The attribute whose values share deliveries evenly; not together with `enable_ordering`.
    #[schema(min_length = 1, max_length = 256)]
    fairness_key: Option<String>,
    /// Most messages that are leased at a time; null: no limit.
    #[schema(minimum = 1, maximum = 1_000_000)]
    max_in_flight: Option<i32>,
    /// Most messages that one consumer holds at a time; null: no limit.
    #[schema(minimum = 1, maximum = 1_000_000)]
    max_in_flight_per_consumer: Option<i32>,
    /// Most messages handed out a second; null: no limit.
    #[schema(minimum = 1, maximum = 1_000_000)]
    max_rate: Option<i32>,
    /// Messages published from now on expire after it; null: only those that say so.
    #[schema(minimum = 1, maximum = 31_536_000)]
    message_ttl_seconds: Option<i32>,
    /// Keep expired messages as dead letters.
    #[schema(nullable = false)]
    dead_letter_expired: Option<bool>,
    /// Spent messages are published there, not kept as dead letters; null: they are kept.
    dead_letter_topic_id: Option<String>,
    /// Hand nothing out; publishes go on arriving, and what is out can be settled.
    #[schema(nullable = false)]
    paused: Option<bool>,
    /// It is deleted when nobody has pulled, waited or kept it for so long; null: never.
    #[schema(minimum = 10, maximum = 31_536_000)]
    expires_after_seconds: Option<i32>,
    /// Where messages are sent to; null: nowhere. What is left out of it stays, null takes it back. Pauses end.
    /// The answer has the secret that signs if it was made now.
    push: Option<ChangePush>,
}

/// How a setting is read from the body of a new subscription.
enum Kind {
    /// A whole number from 1.
    UpTo(i32),
    /// A whole number.
    Within(i32, i32),
    Flag,
    /// Text of so many characters.
    Text(usize, usize),
    TopicId,
}

/// The settings of a subscription that it need not have, beside its filter.
const OPTIONAL: [(&str, Kind); 13] = [
    ("backoff_strategy", Kind::Text(0, 1024)),
    ("ack_deadline_seconds", Kind::UpTo(43200)),
    ("enable_ordering", Kind::Flag),
    ("ordering_failure", Kind::Text(0, 1024)),
    ("fairness_key", Kind::Text(1, 256)),
    ("max_in_flight", Kind::UpTo(MOST_IN_FLIGHT)),
    ("max_in_flight_per_consumer", Kind::UpTo(MOST_IN_FLIGHT)),
    ("max_rate", Kind::UpTo(MOST_A_SECOND)),
    ("message_ttl_seconds", Kind::UpTo(YEAR_SECONDS)),
    ("dead_letter_expired", Kind::Flag),
    ("dead_letter_topic_id", Kind::TopicId),
    ("paused", Kind::Flag),
    ("expires_after_seconds", Kind::Within(10, YEAR_SECONDS)),
];

/// The settings of a subscription that it always has; a new one has the server's.
const RETRY_POLICY: [&str; 3] = [
    "max_delivery_attempts",
    "backoff_min_seconds",
    "backoff_max_seconds",
];

/// Those settings of a new subscription that it need not have, if given; a fault is noted in `fields`.
pub fn optional_settings(fields: &mut Fields<'_>) -> Map<String, Value> {
    let mut settings = Map::new();
    for (name, kind) in OPTIONAL {
        if fields.optional(name).is_none() {
            continue;
        }
        let value = match kind {
            Kind::UpTo(max) => json!(fields.int(name, 1, 1, max)),
            Kind::Within(min, max) => json!(fields.int(name, min, min, max)),
            Kind::Flag => json!(fields.boolean(name).unwrap_or_default()),
            Kind::Text(min, max) => json!(fields.text(name, min, max)),
            Kind::TopicId => json!(fields.id(name)),
        };
        settings.insert(name.to_owned(), value);
    }
    settings
}

/// Change settings of a topic
#[utoipa::path(patch, path = "/topics/{id}", tag = "topics", params(("id" = String, Path)),
    request_body = UpdateTopic,
    responses((status = 200, body = Topic), NotFound, TooLarge, CommonErrors))]
pub async fn update_topic(
    _: Caller<TopicsUpdate>,
    State(app): State<App>,
    PathId(id): PathId,
    JsonBytes(body): JsonBytes,
) -> Result<Json<Topic>, Error> {
    let values = parse_json(&body)?;
    let changes = changes(&body, &values, &["message_retention_seconds"])?;
    let updated = db::topics::update(&app.database, &id, changes).await;
    Ok(Json(
        updated.map_err(|error| given::in_body(error, &values))?,
    ))
}

/// Change settings of a subscription
///
/// They hold from now on; what a publish decided for its messages (filter, expiry, order) stays.
#[utoipa::path(patch, path = "/subscriptions/{id}", tag = "subscriptions",
    params(("id" = String, Path)), request_body = UpdateSubscription,
    responses((status = 200, body = Subscription), NotFound, TooLarge, CommonErrors))]
pub async fn update_subscription(
    _: Caller<SubscriptionsUpdate>,
    grants: Grants,
    State(app): State<App>,
    PathId(id): PathId,
    JsonBytes(body): JsonBytes<{ body::FILTER }>,
) -> Result<Json<Subscription>, Error> {
    let values = parse_json(&body)?;
    // whoever rejects a message of it publishes there
    if let Some(topic_id) = values.get("dead_letter_topic_id").and_then(Value::as_str) {
        grants.allow::<TopicsPublish>(topic_id)?;
    }
    let optional = OPTIONAL.iter().map(|(name, _)| *name);
    let known: Vec<_> = optional
        .chain(RETRY_POLICY)
        .chain(["filter", "push"])
        .collect();
    push::check(&values)?;
    let changes = changes(&body, &values, &known)?;
    let updated = app.engine.update_subscription(&id, changes).await;
    let updated = updated.map_err(|error| given::in_body(error, &values))?;
    if updated.push.is_some() || values.get("push").is_some() {
        // also a pause of the subscription, its order and its limit are the sender's affair
        app.push.changed();
    }
    Ok(Json(updated))
}

/// The text of a body that is an object of none but these fields.
fn changes<'a>(body: &'a Bytes, values: &Value, known: &[&'static str]) -> Result<&'a str, Error> {
    let mut fields = Fields::of_body(values)?;
    fields.know(known);
    filters::check(&mut fields, raw_field(body, "filter").as_deref());
    fields.finish()?;
    // it was parsed, so it is UTF-8
    std::str::from_utf8(body).map_err(|error| Error::Internal(std::sync::Arc::new(error)))
}
