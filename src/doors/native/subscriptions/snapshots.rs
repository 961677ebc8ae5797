//! `/snapshots`: saved places of subscriptions.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::scopes::{SubscriptionsRead, SubscriptionsUpdate};
use crate::db::snapshots::Snapshot;
use crate::db::{self, Page};
use crate::doors::caller::CallerOnSome;
use crate::doors::extract::{
    JsonBody, OfSubscription, PageParams, PathId, QueryValues, narrowed_by,
};
use crate::doors::fields::Fields;
use crate::doors::native::openapi::{Busy, CommonErrors, Conflict, NotFound, TooLarge};
use crate::error::Error;

/// A new snapshot.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"id": "before-release", "subscription_id": "user-processor"}))]
pub struct CreateSnapshot {
    /// 1 to 128 characters of a-z, A-Z, 0-9, ".", "_" and "-".
    #[schema(
        example = "before-release",
        max_length = 128,
        pattern = "^[a-zA-Z0-9-._]+$"
    )]
    id: String,
    /// Whose place to save.
    #[schema(
        example = "user-processor",
        max_length = 128,
        pattern = "^[a-zA-Z0-9-._]+$"
    )]
    subscription_id: String,
}

/// A page of snapshots.
#[derive(Serialize, ToSchema)]
pub struct SnapshotList {
    /// The snapshots, ordered by id.
    data: Vec<Snapshot>,
}

/// Save which messages a subscription has not settled
#[utoipa::path(post, path = "/snapshots", tag = "replay", request_body = CreateSnapshot,
    responses((status = 201, body = Snapshot), NotFound, Conflict, TooLarge, CommonErrors))]
pub async fn create_snapshot(
    caller: CallerOnSome<SubscriptionsUpdate>,
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Snapshot>), Error> {
    let mut fields = Fields::of_body(&body)?;
    let id = fields.id("id");
    let subscription_id = fields.id("subscription_id");
    fields.finish()?;
    caller.allow(&subscription_id)?;
    let created = db::snapshots::create(&app.database, &id, &subscription_id).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// List snapshots
#[utoipa::path(get, path = "/snapshots", tag = "replay", params(PageParams, OfSubscription),
    responses((status = 200, body = SnapshotList), CommonErrors))]
pub async fn list_snapshots(
    caller: CallerOnSome<SubscriptionsRead>,
    State(app): State<App>,
    page: Page,
    QueryValues(query): QueryValues,
) -> Result<Json<SnapshotList>, Error> {
    let subscription_id = narrowed_by(&query, "subscription_id")?;
    let allowed = caller.objects();
    let listed = db::snapshots::list(
        &app.database,
        subscription_id.as_deref(),
        page,
        allowed.as_deref(),
    );
    Ok(Json(SnapshotList {
        data: listed.await?,
    }))
}

/// Delete a snapshot
#[utoipa::path(delete, path = "/snapshots/{id}", tag = "replay",
    params(("id" = String, Path)),
    responses((status = 204), NotFound, Busy, CommonErrors))]
pub async fn delete_snapshot(
    caller: CallerOnSome<SubscriptionsUpdate>,
    State(app): State<App>,
    PathId(id): PathId,
) -> Result<StatusCode, Error> {
    db::snapshots::delete(&app.database, &id, caller.objects().as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}
