//! `/topics`: create, get, list, delete, publish; what they retain.

pub mod log;
pub mod outgoing;
pub mod payloads;
pub mod publish;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::scopes::{TopicsCreate, TopicsDelete, TopicsPublish, TopicsRead};
use crate::db::publish::Publication;
use crate::db::topics::Topic;
use crate::db::{self, Page};
use crate::doors::body;
use crate::doors::caller::{Caller, CallerOnSome};
use crate::doors::extract::{JsonBody, JsonBytes, PageParams, PathId};
use crate::doors::fields::Fields;
use crate::doors::native::idempotency::{self, IdempotencyKey};
use crate::doors::native::openapi::{CommonErrors, Conflict, NotFound, TooLarge};
use crate::doors::native::subscriptions::settings::YEAR_SECONDS;
use crate::error::Error;

/// A new topic.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"id": "user-events"}))]
pub struct CreateTopic {
    /// 1 to 128 characters of a-z, A-Z, 0-9, ".", "_" and "-".
    #[schema(
        example = "user-events",
        max_length = 128,
        pattern = "^[a-zA-Z0-9-._]+$"
    )]
    id: String,
    /// How long messages are kept for replay; default: as long as the server keeps them.
    #[schema(minimum = 0, maximum = 31_536_000)]
    message_retention_seconds: Option<i32>,
    /// Find the retained messages of an ordering key at once; for good. Publishing messages that have one costs a
    /// tenth more.
    #[schema(nullable = false, default = false)]
    index_ordering_keys: Option<bool>,
}

/// A page of topics.
#[derive(Serialize, ToSchema)]
pub struct TopicList {
    /// The topics, ordered by id.
    data: Vec<Topic>,
}

/// Create a topic
#[utoipa::path(post, path = "/topics", tag = "topics", request_body = CreateTopic,
    responses((status = 201, body = Topic), Conflict, TooLarge, CommonErrors))]
pub async fn create_topic(
    caller: CallerOnSome<TopicsCreate>,
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Topic>), Error> {
    let mut fields = Fields::of_body(&body)?;
    let id = fields.id("id");
    let retention = fields
        .optional("message_retention_seconds")
        .is_some()
        .then(|| fields.int("message_retention_seconds", 0, 0, YEAR_SECONDS));
    let indexed = fields.boolean("index_ordering_keys").unwrap_or_default();
    fields.finish()?;
    caller.allow(&id)?;
    Ok((
        StatusCode::CREATED,
        Json(db::topics::create(&app.database, &id, retention, indexed).await?),
    ))
}

/// Get a topic
#[utoipa::path(get, path = "/topics/{id}", tag = "topics", params(("id" = String, Path)),
    responses((status = 200, body = Topic), NotFound, CommonErrors))]
pub async fn get_topic(
    _: Caller<TopicsRead>,
    State(app): State<App>,
    PathId(id): PathId,
) -> Result<Json<Topic>, Error> {
    Ok(Json(db::topics::get(&app.database, &id).await?))
}

/// List topics
#[utoipa::path(get, path = "/topics", tag = "topics", params(PageParams),
    responses((status = 200, body = TopicList), CommonErrors))]
pub async fn list_topics(
    caller: CallerOnSome<TopicsRead>,
    State(app): State<App>,
    page: Page,
) -> Result<Json<TopicList>, Error> {
    Ok(Json(TopicList {
        data: db::topics::list(&app.database, page, caller.objects().as_deref()).await?,
    }))
}

/// Delete a topic with its subscriptions and their messages
#[utoipa::path(delete, path = "/topics/{id}", tag = "topics", params(("id" = String, Path)),
    responses((status = 204), NotFound, CommonErrors))]
pub async fn delete_topic(
    _: Caller<TopicsDelete>,
    State(app): State<App>,
    PathId(id): PathId,
) -> Result<StatusCode, Error> {
    db::topics::delete(&app.database, &id).await?;
    app.push.changed();
    Ok(StatusCode::NO_CONTENT)
}

/// Publish payloads, all or none
#[utoipa::path(post, path = "/topics/{id}/messages", tag = "original",
    operation_id = "publish_payloads",
    params(("id" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 256,
            description = "Under which this request is answered once")),
    request_body(content = Vec<Object>, example = json!([{"event": "user.created", "country": "BR"}])),
    responses((status = 204), NotFound, TooLarge, CommonErrors))]
pub async fn publish_messages(
    _: Caller<TopicsPublish>,
    State(app): State<App>,
    PathId(id): PathId,
    IdempotencyKey(key): IdempotencyKey,
    JsonBytes(body): JsonBytes<{ body::PUBLISH }>,
) -> Result<StatusCode, Error> {
    let length = body.len();
    let parse = move || {
        let payloads = payloads::parse(&body)?;
        Ok::<_, Error>((
            payloads,
            key.map(|key| idempotency::request_key(key, &body)),
        ))
    };
    let (payloads, request) = app.budget.work(length, parse).await??;
    let publication = Publication {
        payloads,
        ..Publication::default()
    };
    let published = app.engine.publish(id, publication, request).await;
    published.map_err(idempotency::in_header)?;
    Ok(StatusCode::NO_CONTENT)
}
