//! `/jobs`: watching and cancelling work that goes over many messages.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::scopes::{SubscriptionsRead, SubscriptionsUpdate};
use crate::db::jobs::Job;
use crate::db::{self, Page};
use crate::doors::caller::CallerOnSome;
use crate::doors::given;
use crate::doors::native::extract::{
    OfSubscription, PageParams, PathUuid, QueryValues, narrowed_by,
};
use crate::doors::native::openapi::{CommonErrors, NotFound};
use crate::error::Error;

/// A page of jobs.
#[derive(Serialize, ToSchema)]
pub struct JobList {
    /// The jobs, the newest first.
    data: Vec<Job>,
}

/// List jobs
#[utoipa::path(get, path = "/jobs", tag = "replay", params(PageParams, OfSubscription),
    responses((status = 200, body = JobList), CommonErrors))]
pub async fn list_jobs(
    caller: CallerOnSome<SubscriptionsRead>,
    State(app): State<App>,
    page: Page<Uuid>,
    QueryValues(query): QueryValues,
) -> Result<Json<JobList>, Error> {
    let subscription_id = narrowed_by(&query, "subscription_id")?;
    let allowed = caller.objects();
    let listed = db::jobs::list(
        &app.database,
        subscription_id.as_deref(),
        page,
        allowed.as_deref(),
    );
    Ok(Json(JobList {
        data: listed
            .await
            .map_err(|error| given::in_query(error, &query))?,
    }))
}

/// Watch a job
#[utoipa::path(get, path = "/jobs/{id}", tag = "replay", params(("id" = Uuid, Path)),
    responses((status = 200, body = Job), NotFound, CommonErrors))]
pub async fn get_job(
    caller: CallerOnSome<SubscriptionsRead>,
    State(app): State<App>,
    PathUuid(id): PathUuid,
) -> Result<Json<Job>, Error> {
    let allowed = caller.objects();
    Ok(Json(
        db::jobs::get(&app.database, id, allowed.as_deref()).await?,
    ))
}

/// Cancel a job
///
/// It stops after its current step; what it has done stays done. A job that is over stays as it is.
#[utoipa::path(delete, path = "/jobs/{id}", tag = "replay", params(("id" = Uuid, Path)),
    responses((status = 200, body = Job), NotFound, CommonErrors))]
pub async fn cancel_job(
    caller: CallerOnSome<SubscriptionsUpdate>,
    State(app): State<App>,
    PathUuid(id): PathUuid,
) -> Result<Json<Job>, Error> {
    let allowed = caller.objects();
    Ok(Json(
        db::jobs::cancel(&app.database, id, allowed.as_deref()).await?,
    ))
}
