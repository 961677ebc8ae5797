//! `/jobs`: watching and cancelling work that goes over many messages.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::scopes::{SubscriptionsRead, SubscriptionsUpdate};
use crate::db::jobs::Job;
use crate::db::{self, Page};
use crate::doors::answers;
use crate::doors::caller::CallerOnSome;
use crate::doors::extract::{OfSubscription, PageParams, PathUuid, QueryValues, narrowed_by};
use crate::doors::given;
use crate::doors::native::openapi::{CommonErrors, NotFound};
use crate::error::Error;

/// A page of jobs.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the schema only; jobs are answered one by one")]
pub struct JobList {
    /// The jobs, the newest first.
    data: Vec<Job>,
}

/// List jobs
///
/// A page ends early where it would have too many bytes (FASTPUBSUB_API_MAX_ANSWER_BYTES): only an empty
/// one is the end.
#[utoipa::path(get, path = "/jobs", tag = "replay", params(PageParams, OfSubscription),
    responses((status = 200, body = JobList), CommonErrors))]
pub async fn list_jobs(
    caller: CallerOnSome<SubscriptionsRead>,
    State(app): State<App>,
    page: Page<Uuid>,
    QueryValues(query): QueryValues,
) -> Result<Response, Error> {
    let subscription_id = narrowed_by(&query, "subscription_id")?;
    let allowed = caller.objects();
    let share = answers::share(&app).await?;
    let listed = db::jobs::list(
        &app.database,
        subscription_id.as_deref(),
        page,
        allowed.as_deref(),
        app.settings.api_max_answer_bytes,
    )
    .await
    .map_err(|error| given::in_query(error, &query))?;
    answers::page(r#"{"data":["#, listed, (share, Job::size), |job| job)
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
