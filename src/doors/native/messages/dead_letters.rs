//! `/subscriptions/{id}/dlq` and `/subscriptions/{id}/parked`: messages that a subscription gave up.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::scopes::SubscriptionsConsume;
use crate::db::dead_letters::{FailedDelivery, Reprocessed};
use crate::db::json::JsonText;
use crate::db::{self, Page, Timestamp};
use crate::doors::answers;
use crate::doors::body;
use crate::doors::caller::Caller;
use crate::doors::extract::{JsonBytes, PageParams, PathId};
use crate::doors::fields::Fields;
use crate::doors::given;
use crate::doors::native::attributes::Attributes;
use crate::doors::native::filters;
use crate::doors::native::messages::handles::handles;
use crate::doors::native::openapi::{CommonErrors, NotFound, TooLarge};
use crate::doors::tree::{parse_json, raw_field};
use crate::error::Error;

/// Most dead letters that come back with one request by filter.
const MAX_REPROCESSED: i32 = 10_000;
/// Most dead letters a second that reprocessing can be paced to.
const MAX_PER_SECOND: i32 = 1_000_000;

/// A message that one subscription gave up.
#[derive(Serialize, ToSchema)]
pub struct DeadLetter {
    /// Its id.
    id: Uuid,
    /// The subscription.
    subscription_id: String,
    /// What was published.
    #[schema(value_type = Object)]
    payload: JsonText,
    /// How often it was delivered.
    delivery_attempts: i32,
    /// When it was published.
    created_at: Timestamp,
    /// Its attributes, each a string.
    #[schema(value_type = HashMap<String, String>)]
    attributes: Attributes,
    /// Its ordering key, if it has one.
    #[schema(required = true)]
    ordering_key: Option<String>,
    /// Its priority; the default is 0.
    priority: i16,
    /// Why: attempts (nacked on the last one), rejected, expired or `consumer_lost`.
    #[schema(example = "attempts")]
    reason: String,
    /// What the consumer said of the last attempt, if it did.
    #[schema(required = true)]
    last_error: Option<String>,
    /// Since when it is a dead letter.
    dead_at: Timestamp,
    /// The deliveries that failed, the oldest first; at most the last 100.
    deliveries: Vec<FailedDelivery>,
}

/// Dead letters of a subscription.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the schema only; dead letters are answered one by one"
)]
pub struct DeadLetterList {
    /// In publish order.
    data: Vec<DeadLetter>,
}

/// Which dead letters come back: these message ids, or what an object says.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Reprocess {
    /// The ids.
    Ids(Vec<Uuid>),
    /// All of them, or those that match a filter.
    Matching(ReprocessMatching),
}

/// All dead letters, or those that match a filter, the oldest first.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"all": true, "per_second": 10}))]
pub struct ReprocessMatching {
    /// true for all; otherwise there must be a filter.
    #[schema(nullable = false)]
    all: Option<bool>,
    /// What must match, as in a subscription's filter.
    #[schema(value_type = Option<Object>)]
    filter: Option<Value>,
    /// Most dead letters that come back with this request.
    #[schema(minimum = 1, maximum = 10_000, default = 10_000)]
    limit: Option<i32>,
    /// Hand out no more than so many of them a second; all at once when absent.
    #[schema(minimum = 1, maximum = 1_000_000)]
    per_second: Option<i32>,
}

/// How many dead letters were deleted.
#[derive(Serialize, ToSchema)]
pub struct Purged {
    /// How many.
    purged: i64,
}

/// List dead letters
#[utoipa::path(get, path = "/subscriptions/{id}/dlq", tag = "dead letters",
    params(("id" = String, Path), PageParams),
    responses((status = 200, body = DeadLetterList), NotFound, CommonErrors))]
pub async fn list_dlq_messages(
    _: Caller<SubscriptionsConsume>,
    State(app): State<App>,
    PathId(id): PathId,
    page: Page<Uuid>,
) -> Result<Response, Error> {
    let share = answers::share(&app).await?;
    let dead_letters =
        db::dead_letters::list(&app.database, &id, page, app.settings.api_max_answer_bytes).await?;
    let size = db::dead_letters::DeadLetter::size;
    answers::page(r#"{"data":["#, dead_letters, (share, size), move |letter| {
        shown(&id, letter)
    })
}

/// Make dead letters available again, with no attempts spent
///
/// A list of message ids brings back these, with status 204. An object brings back all or those that
/// match a filter, at most 10,000 a request, and the answer says how many are left.
#[utoipa::path(post, path = "/subscriptions/{id}/dlq/reprocess", tag = "dead letters",
    params(("id" = String, Path)), request_body(content = Reprocess, example = json!({"all": true, "per_second": 10})),
    responses((status = 200, body = Reprocessed), (status = 204), NotFound, TooLarge, CommonErrors))]
pub async fn reprocess_dlq_messages(
    _: Caller<SubscriptionsConsume>,
    State(app): State<App>,
    PathId(id): PathId,
    JsonBytes(body): JsonBytes<{ body::LIST }>,
) -> Result<Response, Error> {
    let text = body.clone();
    let parse = move || parse_json(&text);
    let values = app.budget.work(body.len(), parse).await??;
    if !values.is_object() {
        let ids: Vec<Uuid> = handles(&values)?
            .iter()
            .map(|handle| handle.message_id)
            .collect();
        app.engine.reprocess(&id, &ids).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let filter = raw_field(&body, "filter");
    let (limit, per_second) = limits(&values, filter.as_deref())?;
    let reprocessed = app
        .engine
        .reprocess_matching(&id, filter.as_deref(), limit, per_second)
        .await;
    let reprocessed = reprocessed.map_err(|error| given::in_body(error, &values))?;
    Ok(Json(reprocessed).into_response())
}

/// Delete all dead letters
#[utoipa::path(delete, path = "/subscriptions/{id}/dlq", tag = "dead letters",
    params(("id" = String, Path)),
    responses((status = 200, body = Purged), NotFound, CommonErrors))]
pub async fn purge_dlq_messages(
    _: Caller<SubscriptionsConsume>,
    State(app): State<App>,
    PathId(id): PathId,
) -> Result<Json<Purged>, Error> {
    let purged = db::dead_letters::purge(&app.database, &id).await?;
    Ok(Json(Purged { purged }))
}

/// The limits of reprocessing, which must say what comes back.
fn limits(body: &Value, filter: Option<&RawValue>) -> Result<(Option<i32>, Option<i32>), Error> {
    let mut fields = Fields::of_body(body)?;
    let all = fields.boolean("all");
    let has_filter = fields.optional("filter").is_some();
    filters::check(&mut fields, filter);
    match (all, has_filter) {
        (Some(true), true) => {
            fields.refuse_as("filter", "all and filter exclude each other");
        }
        (Some(true), false) | (_, true) => {}
        // nothing said must not mean everything
        (_, false) => {
            fields.refuse_as("all", "all must be true where there is no filter");
        }
    }
    let limit = optional_int(&mut fields, "limit", MAX_REPROCESSED);
    let per_second = optional_int(&mut fields, "per_second", MAX_PER_SECOND);
    fields.finish()?;
    Ok((limit, per_second))
}

/// A number from 1 to `max`, if given.
fn optional_int(fields: &mut Fields<'_>, name: &'static str, max: i32) -> Option<i32> {
    fields
        .optional(name)
        .is_some()
        .then(|| fields.int(name, 1, 1, max))
}

fn shown(subscription_id: &str, letter: db::dead_letters::DeadLetter) -> DeadLetter {
    DeadLetter {
        id: letter.message_id,
        subscription_id: subscription_id.to_owned(),
        payload: letter.payload,
        delivery_attempts: letter.attempts,
        created_at: letter.published_at,
        attributes: Attributes(letter.attributes),
        ordering_key: letter.ordering_key,
        priority: letter.priority.unwrap_or(0),
        reason: letter.reason,
        last_error: letter.last_error,
        dead_at: letter.dead_at,
        deliveries: letter.deliveries.0,
    }
}
