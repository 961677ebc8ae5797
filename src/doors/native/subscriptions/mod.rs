//! `/subscriptions`: create, get, list, delete, metrics.

pub mod filter_preview;
pub mod jobs;
pub mod push;
pub mod push_test;
pub mod seek;
pub mod settings;
pub mod snapshots;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::scopes::{
    SubscriptionsCreate, SubscriptionsDelete, SubscriptionsRead, TopicsPublish, TopicsSubscribe,
};
use crate::config::Settings;
use crate::db::subscriptions::{NewSettings, NewSubscription, Subscription, SubscriptionMetrics};
use crate::db::{self, Page};
use crate::doors::answers;
use crate::doors::body;
use crate::doors::caller::{Caller, CallerOnSome, Grants};
use crate::doors::extract::{JsonBytes, PageParams, PathId, QueryValues, narrowed_by};
use crate::doors::fields::Fields;
use crate::doors::given;
use crate::doors::native::filters;
use crate::doors::native::openapi::{CommonErrors, Conflict, NotFound, TooLarge};
use crate::doors::native::subscriptions::push::SetPush;
use crate::doors::native::subscriptions::settings::optional_settings;
use crate::doors::native::times;
use crate::doors::tree::{parse_json, raw_field};
use crate::error::{Error, Rule};

/// A new subscription.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"id": "user-processor", "topic_id": "user-events",
    "filter": {"country": ["BR", "US"]}, "max_delivery_attempts": 5}))]
pub struct CreateSubscription {
    /// 1 to 128 characters of a-z, A-Z, 0-9, ".", "_" and "-".
    #[schema(
        example = "user-processor",
        max_length = 128,
        pattern = "^[a-zA-Z0-9-._]+$"
    )]
    id: String,
    /// The topic to receive from.
    #[schema(
        example = "user-events",
        max_length = 128,
        pattern = "^[a-zA-Z0-9-._]+$"
    )]
    topic_id: String,
    /// Fields that a message must have (AND), each with the values it may have (OR), or an object of
    /// the fields inside it. A list holds strings, numbers, booleans and operators: prefix, suffix,
    /// anything-but, exists, numeric, routing-key. At most 1000 values in all; null and {} let every
    /// message pass.
    #[schema(value_type = Option<Object>,
        example = json!({"country": ["BR", "US"], "price": [{"numeric": [">=", 10]}]}))]
    filter: Option<Value>,
    /// Deliveries of a message before it is dead-lettered; default: the server's.
    #[schema(nullable = false, minimum = 1, maximum = 2_147_483_647)]
    max_delivery_attempts: Option<i32>,
    /// First wait before a retry; default: the server's.
    #[schema(nullable = false, minimum = 1, maximum = 2_147_483_647)]
    backoff_min_seconds: Option<i32>,
    /// Longest wait before a retry, at least `backoff_min_seconds`; default: the server's.
    #[schema(nullable = false, minimum = 1, maximum = 2_147_483_647)]
    backoff_max_seconds: Option<i32>,
    /// How the wait grows from retry to retry: `exponential` (default), which doubles it, `linear` or
    /// `fixed`.
    #[schema(pattern = "^(fixed|linear|exponential)$")]
    backoff_strategy: Option<String>,
    /// How long a delivery is leased before it is available again; default: the server's.
    #[schema(minimum = 1, maximum = 43200)]
    ack_deadline_seconds: Option<i32>,
    /// Hand messages of one ordering key out one after the other; default: false.
    enable_ordering: Option<bool>,
    /// What happens to a key whose message is spent: `dead_letter` (default), `park` or `skip`.
    #[schema(pattern = "^(dead_letter|park|skip)$")]
    ordering_failure: Option<String>,
    /// The attribute whose values share deliveries evenly; not together with `enable_ordering`.
    #[schema(min_length = 1, max_length = 256)]
    fairness_key: Option<String>,
    /// Most messages that are leased at a time; default: no limit.
    #[schema(minimum = 1, maximum = 1_000_000)]
    max_in_flight: Option<i32>,
    /// Most messages that one consumer holds at a time; default: no limit.
    #[schema(minimum = 1, maximum = 1_000_000)]
    max_in_flight_per_consumer: Option<i32>,
    /// Most messages handed out a second; default: no limit.
    #[schema(minimum = 1, maximum = 1_000_000)]
    max_rate: Option<i32>,
    /// Unconsumed messages expire after it; default: only those that say so.
    #[schema(minimum = 1, maximum = 31_536_000)]
    message_ttl_seconds: Option<i32>,
    /// Keep expired messages as dead letters; default: false.
    dead_letter_expired: Option<bool>,
    /// Publish spent messages to this topic instead of keeping them as dead letters.
    #[schema(max_length = 128, pattern = "^[a-zA-Z0-9-._]+$")]
    dead_letter_topic_id: Option<String>,
    /// Hand nothing out until it is set to false; default: false.
    paused: Option<bool>,
    /// It is deleted when nobody has pulled, waited or kept it for so long; default: never.
    #[schema(minimum = 10, maximum = 31_536_000)]
    expires_after_seconds: Option<i32>,
    /// Send messages to an endpoint; `max_in_flight` is then 10 unless it is given. The answer has the secret
    /// that signs, once.
    push: Option<SetPush>,
    /// Also receive the retained messages that were published at or after this time.
    #[schema(format = DateTime)]
    start_from: Option<String>,
}

/// A page of subscriptions.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the schema only; subscriptions are answered one by one"
)]
pub struct SubscriptionList {
    /// The subscriptions, ordered by id.
    data: Vec<Subscription>,
}

/// Create a subscription
///
/// Needs the scope `subscriptions:create` without an object, or on the id of the subscription and
/// `topics:subscribe` on the topic; `topics:publish` on the dead letter topic, if there is one.
#[utoipa::path(post, path = "/subscriptions", tag = "subscriptions",
    request_body = CreateSubscription,
    responses((status = 201, body = Subscription), NotFound, Conflict, TooLarge, CommonErrors))]
pub async fn create_subscription(
    caller: CallerOnSome<SubscriptionsCreate>,
    grants: Grants,
    State(app): State<App>,
    JsonBytes(body): JsonBytes<{ body::FILTER }>,
) -> Result<(StatusCode, Json<Subscription>), Error> {
    let values = parse_json(&body)?;
    let new = new_subscription(&values, raw_field(&body, "filter"), &app.settings)?;
    // without an object it is a right to any topic, as in the Python original
    if !caller.is_unlimited() {
        caller.allow(&new.id)?;
        grants.allow::<TopicsSubscribe>(&new.topic_id)?;
    }
    // whoever rejects a message of it publishes there
    let dead_letter_topic_id = new.settings.others.get("dead_letter_topic_id");
    if let Some(topic_id) = dead_letter_topic_id.and_then(Value::as_str) {
        grants.allow::<TopicsPublish>(topic_id)?;
    }
    let created = db::subscriptions::create(&app.database, &new).await;
    let created = created.map_err(|error| given::in_body(error, &values))?;
    if created.push.is_some() {
        app.push.changed();
    }
    Ok((StatusCode::CREATED, Json(created)))
}

/// Get a subscription
#[utoipa::path(get, path = "/subscriptions/{id}", tag = "subscriptions",
    params(("id" = String, Path)),
    responses((status = 200, body = Subscription), NotFound, CommonErrors))]
pub async fn get_subscription(
    _: Caller<SubscriptionsRead>,
    State(app): State<App>,
    PathId(id): PathId,
) -> Result<Json<Subscription>, Error> {
    Ok(Json(db::subscriptions::get(&app.database, &id).await?))
}

/// List subscriptions
///
/// A page ends early where it would have too many bytes (FASTPUBSUB_API_MAX_ANSWER_BYTES): only an empty
/// one is the end.
#[utoipa::path(get, path = "/subscriptions", tag = "subscriptions",
    params(PageParams, ("topic_id" = Option<String>, Query,
        description = "Only those of this topic; none when there is no such topic")),
    responses((status = 200, body = SubscriptionList), CommonErrors))]
pub async fn list_subscriptions(
    caller: CallerOnSome<SubscriptionsRead>,
    State(app): State<App>,
    page: Page,
    QueryValues(query): QueryValues,
) -> Result<Response, Error> {
    let topic_id = narrowed_by(&query, "topic_id")?;
    let allowed = caller.objects();
    let share = answers::share(&app).await?;
    let listed = db::subscriptions::list(
        &app.database,
        topic_id.as_deref(),
        page,
        allowed.as_deref(),
        app.settings.api_max_answer_bytes,
    )
    .await?;
    let size = Subscription::size;
    answers::page(r#"{"data":["#, listed, (share, size), |listed| listed)
}

/// Delete a subscription with its messages
#[utoipa::path(delete, path = "/subscriptions/{id}", tag = "subscriptions",
    params(("id" = String, Path)),
    responses((status = 204), NotFound, CommonErrors))]
pub async fn delete_subscription(
    _: Caller<SubscriptionsDelete>,
    State(app): State<App>,
    PathId(id): PathId,
) -> Result<StatusCode, Error> {
    db::subscriptions::delete(&app.database, &id).await?;
    app.push.changed();
    Ok(StatusCode::NO_CONTENT)
}

/// Count the messages of a subscription by state
#[utoipa::path(get, path = "/subscriptions/{id}/metrics", tag = "subscriptions",
    params(("id" = String, Path)),
    responses((status = 200, body = SubscriptionMetrics), NotFound, CommonErrors))]
pub async fn subscription_metrics(
    _: Caller<SubscriptionsRead>,
    State(app): State<App>,
    PathId(id): PathId,
) -> Result<Json<SubscriptionMetrics>, Error> {
    Ok(Json(db::subscriptions::metrics(&app.database, &id).await?))
}

fn new_subscription(
    body: &Value,
    filter: Option<Box<RawValue>>,
    defaults: &Settings,
) -> Result<NewSubscription, Error> {
    let mut fields = Fields::of_body(body)?;
    let id = fields.id("id");
    let topic_id = fields.id("topic_id");
    filters::check(&mut fields, filter.as_deref());
    let max_delivery_attempts = fields.int(
        "max_delivery_attempts",
        defaults.subscription_max_attempts,
        1,
        i32::MAX,
    );
    let min_default = defaults.subscription_backoff_min_seconds;
    let backoff_min_seconds = fields.int("backoff_min_seconds", min_default, 1, i32::MAX);
    // a client that raises the shortest wait above the default longest one has not contradicted itself
    let max_default = defaults
        .subscription_backoff_max_seconds
        .max(backoff_min_seconds);
    let backoff_max_seconds = fields.int("backoff_max_seconds", max_default, 1, i32::MAX);
    if backoff_max_seconds < backoff_min_seconds {
        let rule = Rule::From(backoff_min_seconds.into());
        fields.refuse("backoff_max_seconds", rule);
    }
    let mut others = optional_settings(&mut fields);
    if let Some(push) = push::given(&mut fields)? {
        others.insert("push".to_owned(), push);
    }
    let start_from = times::optional(&mut fields, "start_from");
    fields.finish()?;
    for (name, value) in [
        ("max_delivery_attempts", max_delivery_attempts),
        ("backoff_min_seconds", backoff_min_seconds),
        ("backoff_max_seconds", backoff_max_seconds),
    ] {
        others.insert(name.to_owned(), json!(value));
    }
    Ok(NewSubscription {
        id,
        topic_id,
        settings: NewSettings { filter, others },
        start_from,
    })
}
