//! `/subscriptions/{id}/browse` and `/subscriptions/{id}/messages`: what is not settled is looked at, deleted,
//! purged.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::app::App;
use crate::auth::scopes::{SubscriptionsConsume, SubscriptionsUpdate};
use crate::db::Timestamp;
use crate::db::browse::{Browse, Browsed, browse};
use crate::db::json::JsonText;
use crate::doors::answers;
use crate::doors::caller::Caller;
use crate::doors::extract::{PathId, PathMessage, QueryValues};
use crate::doors::fields::Fields;
use crate::doors::native::attributes::Attributes;
use crate::doors::native::openapi::{CommonErrors, NotFound};
use crate::error::{Error, Rule};

/// What a message that is not settled can be.
const STATES: [&str; 5] = ["available", "delivered", "scheduled", "parked", "expired"];

/// A message that is not settled.
#[derive(Serialize, ToSchema)]
pub struct BrowsedMessage {
    /// Its id, a UUIDv7 that increases in publish order.
    id: Uuid,
    /// The subscription.
    subscription_id: String,
    /// What was published; null when someone removed it by hand.
    #[schema(required = true, value_type = Option<Object>)]
    payload: Option<JsonText>,
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
    /// Its priority, 0 to 9.
    priority: i16,
    /// available; delivered: leased; scheduled: its backoff or delay lasts; parked: it holds its ordering key
    /// until an operator acts; expired: it will not be delivered.
    #[schema(example = "available")]
    state: String,
    /// Who holds it; null when nobody does.
    #[schema(required = true)]
    consumer_id: Option<String>,
    /// When its lease ends; null when nobody holds it.
    #[schema(required = true)]
    ack_deadline: Option<Timestamp>,
    /// When its backoff or delay ends; null when none lasts.
    #[schema(required = true)]
    available_at: Option<Timestamp>,
}

/// Messages of a subscription that are not settled.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the schema only; messages are answered one by one"
)]
pub struct BrowsedMessageList {
    /// In publish order.
    data: Vec<BrowsedMessage>,
}

/// What to look at.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub struct BrowseParams {
    /// Only those of this state: available, delivered, scheduled, parked or expired.
    state: Option<String>,
    /// How many messages to return.
    #[param(minimum = 1, maximum = 100, default = 10)]
    limit: Option<i32>,
    /// Only messages after the one of this id, the last of the page before.
    after: Option<Uuid>,
}

/// Look at messages that are not settled
///
/// In publish order, with state, holder and times; nothing is leased. A lease whose ack deadline has passed
/// reads as available.
#[utoipa::path(get, path = "/subscriptions/{id}/browse", tag = "messages",
    params(("id" = String, Path), BrowseParams),
    responses((status = 200, body = BrowsedMessageList), NotFound, CommonErrors))]
pub async fn browse_messages(
    _: Caller<SubscriptionsConsume>,
    State(app): State<App>,
    PathId(id): PathId,
    QueryValues(query): QueryValues,
) -> Result<Response, Error> {
    let mut fields = Fields::of_query(&query);
    let state = fields.optional("state").and_then(|state| state.as_str());
    if state.is_some_and(|state| !STATES.contains(&state)) {
        let rule = Rule::OneOf("'available', 'delivered', 'scheduled', 'parked' or 'expired'");
        fields.refuse("state", rule);
    }
    let limit = fields.int("limit", 10, 1, 100);
    let after = fields.optional("after").is_some();
    let after = after.then(|| fields.uuid("after"));
    fields.finish()?;
    let share = answers::share(&app).await?;
    let what = Browse {
        state,
        after,
        offset: 0,
        limit,
        message_ids: None,
        max_bytes: app.settings.api_max_answer_bytes,
    };
    let browsed = browse(&app.database, &id, &what).await?;
    answers::page(
        r#"{"data":["#,
        browsed,
        (share, Browsed::size),
        move |message| shown(&id, message),
    )
}

/// Delete everything that is not settled
///
/// At once, however much it is: what is available, leased, scheduled or parked. Receipts of before are
/// `lease_lost`, what is published later arrives. Running jobs of the subscription are cancelled; settings, dead
/// letters and snapshots stay, and a seek brings back what the topic retains.
#[utoipa::path(delete, path = "/subscriptions/{id}/messages", tag = "messages",
    params(("id" = String, Path)),
    responses((status = 204), NotFound, CommonErrors))]
pub async fn purge_subscription(
    _: Caller<SubscriptionsUpdate>,
    State(app): State<App>,
    PathId(id): PathId,
) -> Result<StatusCode, Error> {
    app.engine.purge(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Delete a message from a subscription
///
/// Whether or not somebody holds it, whose receipt is `lease_lost` then. Other subscriptions keep it. One that
/// is settled or a dead letter is not found.
#[utoipa::path(delete, path = "/subscriptions/{id}/messages/{message_id}", tag = "messages",
    params(("id" = String, Path), ("message_id" = Uuid, Path)),
    responses((status = 204), NotFound, CommonErrors))]
pub async fn delete_message(
    _: Caller<SubscriptionsUpdate>,
    State(app): State<App>,
    PathMessage(id, message_id): PathMessage,
) -> Result<StatusCode, Error> {
    if app.engine.delete(&id, &[message_id]).await?.is_empty() {
        return Err(Error::refused(404, "Message not found"));
    }
    Ok(StatusCode::NO_CONTENT)
}

fn shown(subscription_id: &str, message: Browsed) -> BrowsedMessage {
    BrowsedMessage {
        id: message.message_id,
        subscription_id: subscription_id.to_owned(),
        payload: message.payload,
        delivery_attempts: message.attempts,
        created_at: message.published_at,
        attributes: Attributes(message.attributes),
        ordering_key: message.ordering_key,
        priority: message.priority.unwrap_or(0),
        state: message.state,
        consumer_id: message.consumer_id,
        ack_deadline: message.ack_deadline,
        available_at: message.available_at,
    }
}
