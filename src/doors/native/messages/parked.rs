//! `/subscriptions/{id}/parked`: messages that hold their ordering keys until an operator acts.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::scopes::SubscriptionsConsume;
use crate::db::json::JsonText;
use crate::db::{self, Page, Timestamp};
use crate::doors::answers;
use crate::doors::body;
use crate::doors::caller::Caller;
use crate::doors::extract::{JsonBody, PageParams, PathId};
use crate::doors::fields::Fields;
use crate::doors::native::attributes::Attributes;
use crate::doors::native::openapi::{CommonErrors, NotFound, TooLarge};
use crate::error::{Error, Rule};

/// What can become of a parked message.
const ACTIONS: [&str; 3] = ["retry", "dead_letter", "skip"];

/// A message that holds its ordering key until an operator acts.
#[derive(Serialize, ToSchema)]
pub struct ParkedMessage {
    /// Its id.
    id: Uuid,
    /// The subscription.
    subscription_id: String,
    /// What was published; null when someone removed it by hand.
    #[schema(required = true, value_type = Option<Object>)]
    payload: Option<JsonText>,
    /// How often it was delivered.
    delivery_attempts: i32,
    /// When it was published.
    #[schema(required = true)]
    created_at: Option<Timestamp>,
    /// Its attributes, each a string.
    #[schema(value_type = HashMap<String, String>)]
    attributes: Attributes,
    /// The key that it holds.
    ordering_key: String,
    /// Who had it last; null when that is forgotten.
    #[schema(required = true)]
    consumer_id: Option<String>,
    /// What the consumer said of the last attempt, if it did.
    #[schema(required = true)]
    last_error: Option<String>,
    /// Since when it is parked; null when that is forgotten.
    #[schema(required = true)]
    parked_at: Option<Timestamp>,
    /// How many messages of its key wait for it.
    behind: i64,
}

/// Parked messages of a subscription.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the schema only; messages are answered one by one"
)]
pub struct ParkedMessageList {
    /// In publish order.
    data: Vec<ParkedMessage>,
}

/// What to do with which parked messages.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"message_ids": ["01997ca3-5c2e-7d49-8a6b-0f5f7f1c2d3e"],
    "action": "retry"}))]
pub struct Resume {
    /// The messages. What is not parked is ignored.
    message_ids: Vec<Uuid>,
    /// retry: deliver it again, with no attempts spent; `dead_letter`: make it a dead letter; skip:
    /// drop it.
    #[schema(example = "retry")]
    action: String,
}

/// How many parked messages there were.
#[derive(Serialize, ToSchema)]
pub struct Resumed {
    /// How many.
    resumed: i64,
}

/// List parked messages
///
/// They are there where a subscription orders and its `ordering_failure` is park.
#[utoipa::path(get, path = "/subscriptions/{id}/parked", tag = "dead letters",
    params(("id" = String, Path), PageParams),
    responses((status = 200, body = ParkedMessageList), NotFound, CommonErrors))]
pub async fn list_parked_messages(
    _: Caller<SubscriptionsConsume>,
    State(app): State<App>,
    PathId(id): PathId,
    page: Page<Uuid>,
) -> Result<Response, Error> {
    let share = answers::share(&app).await?;
    let parked =
        db::dead_letters::list_parked(&app.database, &id, page, app.settings.api_max_answer_bytes)
            .await?;
    let shown = move |message: db::dead_letters::ParkedMessage| ParkedMessage {
        id: message.message_id,
        subscription_id: id.clone(),
        payload: message.payload,
        delivery_attempts: message.attempts,
        created_at: message.published_at,
        attributes: Attributes(message.attributes),
        ordering_key: message.ordering_key,
        consumer_id: message.consumer_id,
        last_error: message.last_error,
        parked_at: message.parked_at,
        behind: message.behind,
    };
    let size = db::dead_letters::ParkedMessage::size;
    answers::page(r#"{"data":["#, parked, (share, size), shown)
}

/// Let the ordering keys of parked messages go on
#[utoipa::path(post, path = "/subscriptions/{id}/parked/resume", tag = "dead letters",
    params(("id" = String, Path)), request_body = Resume,
    responses((status = 200, body = Resumed), NotFound, TooLarge, CommonErrors))]
pub async fn resume_messages(
    _: Caller<SubscriptionsConsume>,
    State(app): State<App>,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ body::LIST }>,
) -> Result<Json<Resumed>, Error> {
    let (message_ids, action) = resume(&body)?;
    let resumed = app.engine.resume(&id, &message_ids, &action).await?;
    Ok(Json(Resumed { resumed }))
}

fn resume(body: &Value) -> Result<(Vec<Uuid>, String), Error> {
    let mut fields = Fields::of_body(body)?;
    let message_ids = fields.uuids("message_ids");
    let action = fields.text("action", 0, 20);
    if body.get("action").is_some_and(Value::is_string) && !ACTIONS.contains(&action.as_str()) {
        let rule = Rule::OneOf("'retry', 'dead_letter' or 'skip'");
        fields.refuse("action", rule);
    }
    fields.finish()?;
    Ok((message_ids, action))
}
