//! Topics and their subscriptions.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::caller::Allowed;
use super::names::{self, Kind};
use super::openapi::{Errors, NotFound, TooLarge};
use super::queues::{Deleted, There};
use super::start;
use crate::app::App;
use crate::auth::scopes::{BrokerConsume, BrokerManage};
use crate::db;
use crate::db::Page;
use crate::db::subscriptions::Subscription;
use crate::doors::extract::{JsonBody, parameter};
use crate::doors::fields::Fields;
use crate::error::Error;

/// Most characters of a pattern.
const PATTERN_MAX_LENGTH: usize = 1024;
/// Most characters of an endpoint.
const ENDPOINT_MAX_LENGTH: usize = 2048;
/// Subscriptions that are read in one call.
const PAGE: i32 = 1000;
/// The pattern of everything.
const EVERYTHING: &str = "#";
const PULL: &str = "pull";
const PUSH: &str = "push";

/// A new subscription.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"mode": "pull", "routing_key": "order.*"}))]
pub(super) struct NewSubscription {
    /// Words joined by dots; `*` is one word, `#` any number of words.
    #[schema(min_length = 1, max_length = 1024, default = "#")]
    routing_key: Option<String>,
    /// `pull`; or `push` with an endpoint.
    #[schema(pattern = "^(pull|push)$")]
    mode: Option<String>,
    /// Where messages are pushed to.
    endpoint: Option<String>,
    /// Most messages on their way to the endpoint at a time.
    #[schema(minimum = 1, maximum = 100, default = 10)]
    max_in_flight: Option<i32>,
}

/// A subscription.
#[derive(Serialize, ToSchema)]
pub(super) struct SubscriptionBody {
    /// Its id, which a pull may name.
    #[schema(example = "sub-5d41402abc4b")]
    subscription_id: String,
    /// The topic.
    #[schema(example = "orders")]
    topic: String,
    /// The pattern of the routing keys that it gets.
    #[schema(example = "order.*")]
    routing_key: String,
    /// `pull` or `push`.
    mode: &'static str,
    /// Where messages are pushed to.
    #[schema(required = true)]
    endpoint: Option<String>,
}

impl SubscriptionBody {
    fn new(
        subscription_id: String,
        topic: String,
        routing_key: String,
        endpoint: Option<String>,
    ) -> Self {
        Self {
            subscription_id,
            topic,
            routing_key,
            mode: mode(endpoint.as_deref()),
            endpoint,
        }
    }
}

/// A subscription, as it is told to whoever makes it.
#[derive(Serialize, ToSchema)]
pub(super) struct CreatedSubscription {
    #[serde(flatten)]
    subscription: SubscriptionBody,
    /// What signs pushed messages; null of mode pull.
    #[schema(required = true)]
    secret: Option<String>,
}

/// The subscriptions of a topic.
#[derive(Serialize, ToSchema)]
pub(super) struct Subscriptions {
    /// By their ids.
    subscriptions: Vec<SubscriptionBody>,
}

/// Make sure that a topic exists
#[utoipa::path(put, path = "/topics/{name}", tag = "topics", params(("name" = String, Path)),
    responses((status = 201, body = There), (status = 200, body = There), Errors))]
pub(super) async fn put_topic(
    Allowed { name, .. }: Allowed<BrokerManage>,
    State(app): State<App>,
) -> Result<(StatusCode, Json<There>), Error> {
    let created = start::create_topic(&app, &name).await?;
    Ok(There::answer(name, created))
}

/// Subscribe to a topic, which comes with its first subscription
///
/// The same again is the same subscription. It gets what is published from now on, to be pulled or, with an
/// endpoint, pushed.
#[utoipa::path(post, path = "/topics/{name}/subscriptions", tag = "topics",
    params(("name" = String, Path)), request_body = NewSubscription,
    responses((status = 201, body = CreatedSubscription), (status = 200, body = CreatedSubscription),
        TooLarge, Errors))]
pub(super) async fn subscribe(
    Allowed { name, .. }: Allowed<BrokerManage>,
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Response, Error> {
    let wanted = Wanted::parse(&body)?;
    let endpoint = wanted.endpoint.as_deref();
    let subscription_id = id_of(mode(endpoint), endpoint, &wanted.pattern);
    let new = start::Wanted {
        topic: &name,
        id: &subscription_id,
        pattern: &wanted.pattern,
        endpoint,
        max_in_flight: wanted.max_in_flight,
    };
    let created = match start::create_subscription(&app, &new).await {
        Err(Error::Refused { status: 404, .. }) => {
            start::create_topic(&app, &name).await?;
            start::create_subscription(&app, &new).await
        }
        created => created,
    };
    let created = created.map_err(of_endpoint)?;
    let secret = match endpoint {
        Some(_) => secret(&app, &names::subscription(&name, &subscription_id)).await?,
        None => None,
    };
    let status = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let created = CreatedSubscription {
        subscription: SubscriptionBody::new(subscription_id, name, wanted.pattern, wanted.endpoint),
        secret,
    };
    Ok((status, Json(created)).into_response())
}

/// List the subscriptions of a topic
#[utoipa::path(get, path = "/topics/{name}/subscriptions", tag = "topics",
    params(("name" = String, Path)),
    responses((status = 200, body = Subscriptions), NotFound, Errors))]
pub(super) async fn list_subscriptions(
    Allowed { name, .. }: Allowed<BrokerConsume>,
    State(app): State<App>,
) -> Result<Json<Subscriptions>, Error> {
    let subscriptions = of_topic(&app, &name).await?.into_iter();
    let subscriptions = subscriptions.map(|(subscription_id, subscription)| {
        let pattern = start::pattern_of(&subscription);
        SubscriptionBody::new(
            subscription_id,
            name.clone(),
            pattern,
            start::endpoint_of(&subscription),
        )
    });
    Ok(Json(Subscriptions {
        subscriptions: subscriptions.collect(),
    }))
}

/// End a subscription; its messages go with it
#[utoipa::path(delete, path = "/topics/{name}/subscriptions/{subscription_id}", tag = "topics",
    params(("name" = String, Path), ("subscription_id" = String, Path)),
    responses((status = 200, body = Deleted), NotFound, Errors))]
pub(super) async fn unsubscribe(
    Allowed { name, .. }: Allowed<BrokerManage>,
    SubscriptionId(subscription_id): SubscriptionId,
    State(app): State<App>,
) -> Result<Json<Deleted>, Error> {
    let id = names::subscription(&name, &subscription_id);
    // such an id no subscription has, and Postgres cannot be asked for it
    if subscription_id.contains(['\0', '/']) {
        return Err(unknown(&name, &subscription_id));
    }
    match db::subscriptions::delete(&app.database, &id).await {
        Err(Error::Refused { status: 404, .. }) => Err(unknown(&name, &subscription_id)),
        deleted => {
            deleted?;
            app.push.changed();
            Ok(Json(Deleted { deleted: true }))
        }
    }
}

/// What signs the pushes of a subscription.
async fn secret(app: &App, id: &str) -> Result<Option<String>, Error> {
    app.push.changed();
    let endpoints = db::push::list(&app.database, Some(id)).await?;
    let secrets = endpoints.into_iter().next().map(|found| found.secrets);
    Ok(secrets.and_then(|secrets| secrets.into_iter().next()))
}

/// What the engine says of the setting of an endpoint is said of the field that has it.
fn of_endpoint(error: Error) -> Error {
    let Error::Invalid(mut faults) = error else {
        return error;
    };
    for fault in &mut faults {
        fault.path = vec!["endpoint".into()];
    }
    Error::Invalid(faults)
}

/// The subscription of the path.
#[derive(Debug)]
pub(super) struct SubscriptionId(String);

impl FromRequestParts<App> for SubscriptionId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        Ok(Self(parameter(parts, app, "subscription_id").await))
    }
}

/// There is no such subscription.
pub(super) fn unknown(topic: &str, subscription_id: &str) -> Error {
    let text = format!("topic {topic:?} has no subscription {subscription_id:?}");
    Error::refused(404, text)
}

/// The subscriptions of a topic, each with the id that clients know.
pub(super) async fn of_topic(app: &App, topic: &str) -> Result<Vec<(String, Subscription)>, Error> {
    let topic_id = Kind::Topic.id(topic);
    let prefix = format!("{topic_id}/");
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = Page {
            offset: 0,
            limit: PAGE,
            after,
        };
        let page =
            db::subscriptions::list(&app.database, Some(&topic_id), page, None, usize::MAX).await?;
        let Some(last) = page.last() else {
            break;
        };
        after = Some(last.id.clone());
        let is_last = page.len() < usize::try_from(PAGE).unwrap_or_default();
        found.extend(page.into_iter().filter_map(|subscription| {
            let id = subscription.id.strip_prefix(&prefix)?.to_owned();
            Some((id, subscription))
        }));
        if is_last {
            break;
        }
    }
    if found.is_empty() {
        let topic_there = db::topics::get(&app.database, &topic_id).await;
        Kind::Topic.known(topic, topic_there)?;
    }
    Ok(found)
}

/// The ids of a topic's subscriptions of mode pull in the engine, as many as one claim asks.
pub(super) async fn ids(app: &App, topic: &str) -> Result<Vec<String>, Error> {
    let subscriptions = of_topic(app, topic).await?.into_iter();
    let most = usize::try_from(PAGE).unwrap_or_default();
    let ids = subscriptions
        .filter(|(_, subscription)| start::endpoint_of(subscription).is_none())
        .take(most);
    Ok(ids.map(|(_, subscription)| subscription.id).collect())
}

fn mode(endpoint: Option<&str>) -> &'static str {
    if endpoint.is_some() { PUSH } else { PULL }
}

/// So that the same again is the same.
fn id_of(mode: &str, endpoint: Option<&str>, pattern: &str) -> String {
    let of = json!([mode, endpoint, pattern]).to_string();
    let digest = Sha256::digest(of);
    let hex: String = digest
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sub-{hex}")
}

/// What a body asks for.
#[derive(Debug)]
struct Wanted {
    pattern: String,
    endpoint: Option<String>,
    max_in_flight: Option<i32>,
}

impl Wanted {
    fn parse(body: &Value) -> Result<Self, Error> {
        let mut fields = Fields::of_body(body)?;
        let pattern = match fields.optional("routing_key") {
            Some(_) => fields.text("routing_key", 1, PATTERN_MAX_LENGTH),
            None => EVERYTHING.to_owned(),
        };
        if !pattern.is_empty() && pattern.split('.').any(str::is_empty) {
            fields.refuse_as("routing_key", "a word of it must not be empty");
        }
        let endpoint = fields
            .optional("endpoint")
            .map(|_| fields.text("endpoint", 1, ENDPOINT_MAX_LENGTH));
        if endpoint
            .as_deref()
            .is_some_and(|endpoint| !is_http(endpoint))
        {
            fields.refuse_as("endpoint", "it must be a URL of http or https");
        }
        let mode = fields.optional("mode").map(|_| fields.text("mode", 0, 10));
        match (mode.as_deref(), &endpoint) {
            (Some(PULL), None) | (Some(PUSH) | None, Some(_)) => {}
            (Some(PULL), Some(_)) => fields.refuse_as("endpoint", "mode pull has no endpoint"),
            (Some(PUSH), None) => fields.refuse_as("endpoint", "mode push needs an endpoint"),
            (Some(_), _) => fields.refuse_as("mode", "mode must be pull or push"),
            (None, None) => fields.refuse_as("mode", "mode pull or an endpoint is needed"),
        }
        let max_in_flight = fields
            .optional("max_in_flight")
            .map(|_| fields.int("max_in_flight", 10, 1, 100));
        fields.finish()?;
        Ok(Self {
            pattern,
            endpoint,
            max_in_flight,
        })
    }
}

/// Whether it looks like a URL of http; the engine is stricter.
fn is_http(endpoint: &str) -> bool {
    let host = endpoint
        .split_once("://")
        .filter(|(scheme, _)| ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()))
        .and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    host.is_some_and(|host| !host.is_empty()) && !endpoint.contains(char::is_whitespace)
}
