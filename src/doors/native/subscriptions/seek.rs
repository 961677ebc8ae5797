//! `/subscriptions/{id}/seek`: to a time, the end or a snapshot, or replay what matches a filter.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::scopes::{SubscriptionsRead, SubscriptionsUpdate};
use crate::db::jobs::Job;
use crate::db::seek::Seek;
use crate::doors::body;
use crate::doors::caller::{Caller, Grants};
use crate::doors::extract::{JsonBytes, PathId};
use crate::doors::fields::Fields;
use crate::doors::given;
use crate::doors::native::filters;
use crate::doors::native::openapi::{Busy, CommonErrors, NotFound, TooLarge};
use crate::doors::native::times;
use crate::doors::tree::{parse_json, raw_field};
use crate::error::{Error, Fault, Rule};

/// The ways to say where to go.
const WAYS: [&str; 4] = ["time", "to", "snapshot_id", "filter"];

/// Where to go: one of `time`, `to`, `snapshot_id` and `filter`.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"time": "2026-01-02T03:04:05Z"}))]
pub struct SeekSubscription {
    /// What was published at or after it is available again, what is unsettled and older is settled.
    #[schema(example = "2026-01-02T03:04:05Z", format = DateTime)]
    time: Option<String>,
    /// `end`: settle everything that is unsettled.
    #[schema(pattern = "^end$")]
    to: Option<String>,
    /// What was unsettled at the snapshot or published after it is available again, the rest settled.
    /// A snapshot of another subscription needs the scope `subscriptions:read` on that one.
    snapshot_id: Option<String>,
    /// Retained messages that match it are available again; nothing is settled. {} matches all.
    #[schema(value_type = Option<Object>)]
    filter: Option<Value>,
    /// With a filter: published at or after it.
    #[schema(format = DateTime)]
    since: Option<String>,
    /// With a filter: published before it.
    #[schema(format = DateTime)]
    until: Option<String>,
}

/// Make messages available again, or settle them
///
/// 200 when that is done, 202 with a job to watch and cancel when it goes on.
#[utoipa::path(post, path = "/subscriptions/{id}/seek", tag = "replay",
    params(("id" = String, Path)), request_body = SeekSubscription,
    responses((status = 200, body = Job, description = "It is done"),
        (status = 202, body = Job, description = "It goes on in the background"),
        NotFound, Busy, TooLarge, CommonErrors))]
pub async fn seek_subscription(
    _: Caller<SubscriptionsUpdate>,
    grants: Grants,
    State(app): State<App>,
    PathId(id): PathId,
    JsonBytes(body): JsonBytes<{ body::FILTER }>,
) -> Result<(StatusCode, Json<Job>), Error> {
    let values = parse_json(&body)?;
    let mut seek = where_to(&values, raw_field(&body, "filter"))?;
    if let Seek::Snapshot { allowed, .. } = &mut seek {
        let readable = grants.objects::<SubscriptionsRead>();
        *allowed = readable.map(|others| [others, vec![id.clone()]].concat());
    }
    let job = app.engine.seek(&id, &seek).await;
    let job = job.map_err(|error| given::in_body(error, &values))?;
    let status = if job.is_running() {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(job)))
}

fn where_to(body: &Value, filter: Option<Box<RawValue>>) -> Result<Seek, Error> {
    let mut fields = Fields::of_body(body)?;
    let given: Vec<&str> = WAYS
        .into_iter()
        .filter(|name| fields.optional(name).is_some())
        .collect();
    for name in ["since", "until"] {
        // as good as left out; anything else belongs to a filter
        if body.get(name).is_some_and(Value::is_null) {
            fields.know(&[name]);
        }
    }
    let seek = match (given.as_slice(), filter) {
        (["time"], _) => times::optional(&mut fields, "time").map(Seek::Time),
        (["to"], _) => {
            if fields.text("to", 0, 3) != "end" {
                fields.refuse("to", Rule::OneOf("'end'"));
            }
            Some(Seek::End)
        }
        (["snapshot_id"], _) => Some(Seek::Snapshot {
            id: fields.id("snapshot_id"),
            allowed: None,
        }),
        (["filter"], Some(filter)) => {
            filters::check(&mut fields, Some(&filter));
            Some(Seek::Replay {
                filter,
                since: times::optional(&mut fields, "since"),
                until: times::optional(&mut fields, "until"),
            })
        }
        _ => None,
    };
    fields.finish()?;
    seek.ok_or_else(|| {
        let text = "give one of time, to, snapshot_id and filter".to_owned();
        let fault = Fault::body(Vec::new(), Rule::Refused(text), given::value(body));
        Error::Invalid(vec![fault])
    })
}
