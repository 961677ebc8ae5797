//! Queues: making, emptying and deleting them, and looking at what is in them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::caller::Allowed;
use super::names::Kind;
use super::openapi::{Errors, NotFound};
use super::start;
use super::view::Peeked;
use crate::app::App;
use crate::auth::scopes::{BrokerConsume, BrokerManage};
use crate::db;
use crate::db::browse::{Browse, Browsed};
use crate::doors::answers;
use crate::doors::extract::QueryValues;
use crate::doors::fields::Fields;
use crate::error::Error;

/// That there is a queue or topic.
#[derive(Serialize, ToSchema)]
pub(super) struct There {
    /// Its name.
    #[schema(example = "payments")]
    name: String,
    /// Whether it came to be now.
    created: bool,
}

impl There {
    /// As it is answered.
    pub(super) fn answer(name: String, created: bool) -> (StatusCode, Json<Self>) {
        let status = if created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        (status, Json(Self { name, created }))
    }
}

/// That something is gone.
#[derive(Serialize, ToSchema)]
pub(super) struct Deleted {
    /// Always true.
    pub(super) deleted: bool,
}

/// That a queue is empty.
#[derive(Serialize, ToSchema)]
pub(super) struct Purged {
    /// Always true.
    purged: bool,
}

/// Make sure that a queue exists, with its dead-letter queue
#[utoipa::path(put, path = "/queues/{name}", tag = "queues", params(("name" = String, Path)),
    responses((status = 201, body = There), (status = 200, body = There), Errors))]
pub(super) async fn put_queue(
    Allowed { name, .. }: Allowed<BrokerManage>,
    State(app): State<App>,
) -> Result<(StatusCode, Json<There>), Error> {
    let created = start::create_queue(&app, &name).await?;
    Ok(There::answer(name, created))
}

/// Delete a queue with its messages; its dead-letter queue stays
#[utoipa::path(delete, path = "/queues/{name}", tag = "queues", params(("name" = String, Path)),
    responses((status = 200, body = Deleted), NotFound, Errors))]
pub(super) async fn delete_queue(
    Allowed { name, .. }: Allowed<BrokerManage>,
    State(app): State<App>,
) -> Result<Json<Deleted>, Error> {
    let deleted = db::queues::delete(&app.database, &Kind::Queue.id(&name)).await;
    Kind::Queue.known(&name, deleted)?;
    app.push.changed();
    Ok(Json(Deleted { deleted: true }))
}

/// Delete all messages of a queue, also those that somebody holds
#[utoipa::path(delete, path = "/queues/{name}/messages", tag = "queues",
    params(("name" = String, Path)),
    responses((status = 200, body = Purged), NotFound, Errors))]
pub(super) async fn purge_queue(
    Allowed { name, .. }: Allowed<BrokerManage>,
    State(app): State<App>,
) -> Result<Json<Purged>, Error> {
    let purged = app.engine.purge(&Kind::Queue.id(&name)).await;
    Kind::Queue.known(&name, purged)?;
    Ok(Json(Purged { purged: true }))
}

/// How many to see.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub(super) struct PeekParams {
    /// Most messages.
    #[param(minimum = 1, maximum = 100, default = 10)]
    limit: Option<i32>,
}

/// What is in a queue.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the schema only; messages are answered one by one"
)]
pub(super) struct Seen {
    /// The oldest first.
    messages: Vec<Peeked>,
    /// How many are shown.
    count: usize,
}

#[derive(Serialize)]
struct SeenBegin {
    count: usize,
}

/// See messages of a queue, the oldest first, without taking them
#[utoipa::path(get, path = "/queues/{name}/peek", tag = "queues",
    params(("name" = String, Path), PeekParams),
    responses((status = 200, body = Seen), NotFound, Errors))]
pub(super) async fn peek(
    Allowed { name, .. }: Allowed<BrokerConsume>,
    State(app): State<App>,
    QueryValues(query): QueryValues,
) -> Result<Response, Error> {
    let mut fields = Fields::of_query(&query);
    let limit = fields.int("limit", 10, 1, 100);
    fields.finish()?;
    let mut share = answers::share(&app).await?;
    let messages = browse(&app, &name, limit).await?;
    let bytes = messages.iter().map(Browsed::size).sum();
    share.fit(bytes);
    let shown: Vec<Peeked> = messages.into_iter().filter_map(Peeked::of).collect();
    let begin = answers::begin(&SeenBegin { count: shown.len() }, "messages")?;
    answers::list(begin, shown, (bytes, Some(share)), |message| message)
}

/// Messages that are looked at in one call.
const BROWSED: i32 = 100;

/// The oldest messages that are not over: what is over is passed, however much it is.
async fn browse(app: &App, name: &str, limit: i32) -> Result<Vec<Browsed>, Error> {
    let id = Kind::Queue.id(name);
    let most = usize::try_from(limit).unwrap_or_default();
    let mut seen = Vec::new();
    let mut left = app.settings.api_max_answer_bytes;
    let mut after = None;
    loop {
        let page = Browse {
            state: None,
            after,
            offset: 0,
            // what is over counts here, too
            limit: BROWSED,
            message_ids: None,
            max_bytes: left,
        };
        let browsed = db::browse::browse(&app.database, &id, &page).await;
        let browsed = Kind::Queue.known(name, browsed)?;
        let Some(last) = browsed.last() else {
            return Ok(seen);
        };
        after = Some(last.message_id);
        let is_over = |message: &Browsed| matches!(message.state.as_str(), "expired" | "parked");
        for message in browsed.into_iter().filter(|message| !is_over(message)) {
            let bytes = message.size();
            if seen.len() == most || (bytes > left && !seen.is_empty()) {
                return Ok(seen);
            }
            left = left.saturating_sub(bytes);
            seen.push(message);
        }
        if seen.len() == most || left == 0 {
            return Ok(seen);
        }
    }
}
