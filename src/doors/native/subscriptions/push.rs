//! `push` in subscriptions: where messages are sent to. What it may be, the SQL functions decide, but for URLs,
//! which a parser reads; their refusal names the field.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::scopes::SubscriptionsUpdate;
use crate::db;
use crate::db::push::RotatedSecret;
use crate::doors::caller::Caller;
use crate::doors::extract::{JsonBody, PathId};
use crate::doors::fields::Fields;
use crate::doors::given;
use crate::doors::native::openapi::{CommonErrors, NotFound, TooLarge};
use crate::error::{Error, Fault, Rule, Step};

/// Longest time for which two secrets sign, a week.
const OVERLAP_MAX_SECONDS: i32 = 604_800;
const DAY_SECONDS: i32 = 86_400;

/// Where messages are sent to.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"endpoint": "https://example.com/hook", "timeout_seconds": 15}))]
pub struct SetPush {
    /// An http or https URL of ASCII characters, without user, password and fragment.
    #[schema(max_length = 2048)]
    endpoint: String,
    /// How long an answer may take; default: 15.
    #[schema(minimum = 1, maximum = 60)]
    timeout_seconds: Option<i32>,
    /// Go with each push, at most 20, values by name; their values are never shown.
    headers: Option<HashMap<String, String>>,
}

/// What is new of where messages are sent to.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"timeout_seconds": 30}))]
pub struct ChangePush {
    /// An http or https URL of ASCII characters, without user, password and fragment. The secret stays.
    #[schema(max_length = 2048, nullable = false)]
    endpoint: Option<String>,
    /// How long an answer may take; null: 15.
    #[schema(minimum = 1, maximum = 60)]
    timeout_seconds: Option<i32>,
    /// Go with each push, at most 20, values by name; null: none.
    headers: Option<HashMap<String, String>>,
}

/// How long two secrets sign.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"overlap_seconds": 86400}))]
pub struct RotateSecret {
    /// How long the secret of now signs beside the new one; default: a day.
    #[schema(minimum = 0, maximum = 604_800, nullable = false)]
    overlap_seconds: Option<i32>,
}

/// Sign pushes with a new secret
///
/// The one of now signs beside it for `overlap_seconds`, and one before that ends now. It is shown once.
#[utoipa::path(post, path = "/subscriptions/{id}/push/secret", tag = "subscriptions",
    params(("id" = String, Path)), request_body = RotateSecret,
    responses((status = 200, body = RotatedSecret), NotFound, TooLarge, CommonErrors))]
pub async fn rotate_push_secret(
    _: Caller<SubscriptionsUpdate>,
    State(app): State<App>,
    PathId(id): PathId,
    JsonBody(body): JsonBody,
) -> Result<Json<RotatedSecret>, Error> {
    let mut fields = Fields::of_body(&body)?;
    let overlap_seconds = fields.int("overlap_seconds", DAY_SECONDS, 0, OVERLAP_MAX_SECONDS);
    fields.finish()?;
    let rotated = db::push::rotate(&app.database, &id, overlap_seconds).await?;
    app.push.changed();
    Ok(Json(rotated))
}

/// The setting of a new subscription, if given.
pub(super) fn given(fields: &mut Fields<'_>) -> Result<Option<Value>, Error> {
    let push = fields.optional("push").cloned();
    if let Some(push) = &push {
        check(&json!({ "push": push }))?;
    }
    Ok(push)
}

/// Refuse an endpoint that no parser of URLs takes, and what Postgres cannot be asked about.
pub(super) fn check(body: &Value) -> Result<(), Error> {
    let Some(push) = body.get("push") else {
        return Ok(());
    };
    let mut path = vec!["push".into()];
    if finds_nul(push, &mut path) {
        let rule = Rule::Refused("NUL is not allowed".to_owned());
        let fault = Fault::body(path, rule, given::value(push));
        return Err(Error::Invalid(vec![fault]));
    }
    let Some(text) = push.get("endpoint").and_then(Value::as_str) else {
        return Ok(());
    };
    let Err(error) = Url::parse(text) else {
        return Ok(());
    };
    let path = vec!["push".into(), "endpoint".into()];
    let rule = Rule::Refused(format!("not a URL: {error}"));
    let fault = Fault::body(path, rule, given::value(&Value::from(text)));
    Err(Error::Invalid(vec![fault]))
}

/// Whether there is NUL in a value; the path leads to it then.
fn finds_nul(value: &Value, path: &mut Vec<Step>) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            path.push(name.as_str().into());
            let is_found = name.contains('\0') || finds_nul(value, path);
            if !is_found {
                path.pop();
            }
            is_found
        }),
        _ => false,
    }
}
