//! `/subscriptions/{id}/filter-preview`: a filter tried on messages that are there.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::scopes::{SubscriptionsConsume, SubscriptionsUpdate};
use crate::db::filters::Sample;
use crate::db::json::JsonText;
use crate::db::{self, Timestamp};
use crate::doors::answers;
use crate::doors::body;
use crate::doors::caller::{Caller, Grants};
use crate::doors::extract::{JsonBytes, PathId};
use crate::doors::fields::Fields;
use crate::doors::given;
use crate::doors::native::attributes::Attributes;
use crate::doors::native::filters;
use crate::doors::native::openapi::{CommonErrors, NotFound, TooLarge};
use crate::doors::tree::{parse_json, raw_field};
use crate::error::Error;

/// What to try.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"filter": {"country": [{"anything-but": ["BR"]}]},
    "last": 1000}))]
pub struct PreviewFilter {
    /// The filter, as a subscription would have it; null and {} let every message pass.
    #[schema(value_type = Option<Object>, required = true,
        example = json!({"country": [{"anything-but": ["BR"]}]}))]
    filter: Value,
    /// How many messages to look at, the newest that the topic retains.
    #[schema(nullable = false, minimum = 1, maximum = 100_000, default = 1000)]
    last: Option<i32>,
}

/// What the filter lets pass.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the schema only; samples are answered one by one")]
pub struct FilterPreview {
    /// How many messages were looked at.
    scanned: i64,
    /// How many of them match.
    matched: i64,
    /// The newest that match, at most ten, the newest first.
    samples: Vec<PreviewSample>,
}

/// A message that matches.
#[derive(Serialize, ToSchema)]
pub struct PreviewSample {
    /// Its id.
    id: Uuid,
    /// What was published.
    #[schema(value_type = Object)]
    payload: JsonText,
    /// Its attributes, each a string.
    #[schema(value_type = HashMap<String, String>)]
    attributes: Attributes,
    /// When it was published.
    created_at: Timestamp,
}

/// What a preview begins with.
#[derive(Serialize)]
struct Counts {
    scanned: i64,
    matched: i64,
}

/// Try a filter on the newest messages of a subscription's topic
///
/// Looks at what the topic retains, whether or not it went to this subscription, for 5 seconds at most.
/// A server makes two at a time. A caller that may not change the subscription (scope
/// `subscriptions:update`) sees and counts only what its filter lets pass.
#[utoipa::path(post, path = "/subscriptions/{id}/filter-preview", tag = "subscriptions",
    params(("id" = String, Path)), request_body = PreviewFilter,
    responses((status = 200, body = FilterPreview), NotFound, TooLarge, CommonErrors))]
pub async fn preview_filter(
    _: Caller<SubscriptionsConsume>,
    grants: Grants,
    State(app): State<App>,
    PathId(id): PathId,
    JsonBytes(body): JsonBytes<{ body::FILTER }>,
) -> Result<Response, Error> {
    let values = parse_json(&body)?;
    let filter = raw_field(&body, "filter");
    let mut fields = Fields::of_body(&values)?;
    fields.required("filter");
    filters::check(&mut fields, filter.as_deref());
    let last = fields.int("last", 1000, 1, 100_000);
    fields.finish()?;
    // who may change the filter may have all messages
    let past_filter = grants.has::<SubscriptionsUpdate>(Some(&id));
    let share = answers::share(&app).await?;
    let preview = db::filters::preview(
        &app.database,
        &id,
        filter.as_deref(),
        last,
        app.settings.api_max_answer_bytes,
        past_filter,
    )
    .await
    .map_err(|error| given::in_body(too_long(error), &values))?;
    let counts = Counts {
        scanned: preview.scanned,
        matched: preview.matched,
    };
    let begin = answers::begin(&counts, "samples")?;
    answers::page(begin, preview.samples, (share, Sample::size), shown)
}

fn too_long(error: Error) -> Error {
    match error {
        Error::Timeout(_) => Error::Refused {
            status: 504,
            message: "a filter preview may take 5 seconds; let it look at fewer messages: last"
                .to_owned(),
        },
        error => error,
    }
}

fn shown(sample: Sample) -> PreviewSample {
    PreviewSample {
        id: sample.message_id,
        payload: sample.payload,
        attributes: Attributes(sample.attributes),
        created_at: sample.published_at,
    }
}
