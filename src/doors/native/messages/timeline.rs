//! `/messages/{id}`: what became of a message.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::scopes::SubscriptionsRead;
use crate::db::timeline::Event;
use crate::db::{self, Timestamp};
use crate::doors::answers;
use crate::doors::caller::CallerOnSome;
use crate::doors::extract::PathUuid;
use crate::doors::native::openapi::{CommonErrors, NotFound};
use crate::error::Error;

/// A message, and what became of it in each subscription of its topic.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the schema only; subscriptions are answered one by one"
)]
pub struct Timeline {
    /// Its id.
    id: Uuid,
    /// Its topic.
    topic_id: String,
    /// When it was published.
    created_at: Timestamp,
    /// The subscriptions of the topic that the caller may read, ordered by id.
    subscriptions: Vec<SubscriptionTimeline>,
}

/// What became of a message in one subscription.
#[derive(Serialize, ToSchema)]
pub struct SubscriptionTimeline {
    /// The subscription.
    subscription_id: String,
    /// available, delivered, scheduled, parked, expired, acked, dlq, skipped, `not_matched`, or settled:
    /// it is gone, and how is not remembered.
    #[schema(example = "acked")]
    state: String,
    /// In the order of time; the first is published or `not_matched`.
    events: Vec<TimelineEvent>,
}

/// Something that happened to a message.
#[derive(Serialize, ToSchema)]
pub struct TimelineEvent {
    /// When.
    at: Timestamp,
    /// published, `not_matched`, delivered, acked, nacked, rejected, expired, `consumer_lost`, parked,
    /// skipped or `dead_lettered`.
    #[schema(example = "delivered")]
    event: String,
    /// Which delivery it was; the first is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    attempt: Option<i32>,
    /// Who had the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    consumer_id: Option<String>,
    /// Why: what the consumer said, why it is a dead letter, or what of the filter does not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// What a timeline begins with.
#[derive(Serialize)]
struct Head<'a> {
    id: Uuid,
    topic_id: &'a str,
    created_at: Timestamp,
}

/// Tell what became of a message
///
/// A message is known as long as its topic retains it or a dead letter holds it. Acks and failed
/// deliveries are forgotten by age, so the tale of an old message may have gaps. A tale
/// ends early where it would have too many bytes (FASTPUBSUB_API_MAX_ANSWER_BYTES).
#[utoipa::path(get, path = "/messages/{id}", tag = "messages", params(("id" = Uuid, Path)),
    responses((status = 200, body = Timeline), NotFound, CommonErrors))]
pub async fn message_timeline(
    caller: CallerOnSome<SubscriptionsRead>,
    State(app): State<App>,
    PathUuid(id): PathUuid,
) -> Result<Response, Error> {
    let mut share = answers::share(&app).await?;
    let max_bytes = app.settings.api_max_answer_bytes;
    let allowed = caller.objects();
    let events = db::timeline::get(&app.database, id, allowed.as_deref(), max_bytes).await?;
    let Some(first) = events.first() else {
        return Err(Error::from(sqlx::Error::RowNotFound));
    };
    let head = Head {
        id,
        topic_id: &first.topic_id,
        created_at: first.published_at,
    };
    let begin = answers::begin(&head, "subscriptions")?;
    let bytes = events.iter().map(Event::size).sum();
    share.fit(bytes);
    let mut subscriptions = Vec::new();
    for event in events {
        add(&mut subscriptions, event);
    }
    let room = (bytes, Some(share));
    answers::list(begin, subscriptions, room, |subscription| subscription)
}

/// Add an event, which belongs to the last subscription or begins another one.
fn add(subscriptions: &mut Vec<SubscriptionTimeline>, event: Event) {
    let (Some(subscription_id), Some(state), Some(at), Some(name)) =
        (event.subscription_id, event.state, event.at, event.event)
    else {
        return;
    };
    let shown = TimelineEvent {
        at,
        event: name,
        attempt: event.attempt,
        consumer_id: event.consumer_id,
        reason: event.reason,
    };
    match subscriptions.last_mut() {
        Some(last) if last.subscription_id == subscription_id => last.events.push(shown),
        _ => subscriptions.push(SubscriptionTimeline {
            subscription_id,
            state,
            events: vec![shown],
        }),
    }
}
