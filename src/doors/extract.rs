//! Extractors whose refusals look like everything else: ids of the path, pages of the query, bodies.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;
use uuid::Uuid;

use crate::app::App;
use crate::db::Page;
use crate::doors::body::{self, SMALL};
use crate::doors::fields::Fields;
use crate::doors::given;
use crate::doors::tree::parse_json;
use crate::error::{Error, Fault, Form, Part, Rule};

/// The `{id}` of the path. Any text is taken; what cannot be an id is simply not found.
#[derive(Debug)]
pub struct PathId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let id = Path::<String>::from_request_parts(parts, state).await.ok();
        // Postgres cannot be asked for an id with NUL or of bad UTF-8; the empty id never exists
        Ok(Self(
            id.map(|Path(id)| id)
                .filter(|id| !id.contains('\0'))
                .unwrap_or_default(),
        ))
    }
}

/// The `{id}` of the path, a UUID.
#[derive(Debug)]
pub struct PathUuid(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathUuid {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let PathId(id) = PathId::from_request_parts(parts, state).await?;
        uuid("id", &id).map(Self)
    }
}

/// A parameter of the path, by its name; empty when it is no text.
pub async fn parameter<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> String {
    let path = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await;
    let found = path
        .ok()
        .and_then(|Path(all)| all.into_iter().find(|(known, _)| known == name));
    found.map(|(_, value)| value).unwrap_or_default()
}

/// The `{id}` of the path, and its `{message_id}`, a UUID.
#[derive(Debug)]
pub struct PathMessage(pub String, pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathMessage {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let ids = Path::<(String, String)>::from_request_parts(parts, state).await;
        let (id, message_id) = ids.map(|Path(ids)| ids).unwrap_or_default();
        let message_id = uuid("message_id", &message_id)?;
        // as of PathId
        Ok(Self(
            if id.contains('\0') { String::new() } else { id },
            message_id,
        ))
    }
}

fn uuid(name: &'static str, text: &str) -> Result<Uuid, Error> {
    Uuid::parse_str(text).map_err(|error| {
        Error::Invalid(vec![Fault {
            part: Part::Path,
            path: vec![name.into()],
            rule: Rule::Reads(Form::Uuid, Some(error.to_string())),
            given: json!(text),
        }])
    })
}

/// The parameters of the query, as they came.
#[derive(Debug)]
pub struct QueryPairs(pub Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for QueryPairs {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        query_pairs(&parts.uri).map(Self)
    }
}

/// The parameters of the query, the last of several with one name.
#[derive(Debug)]
pub struct QueryValues(pub Map<String, Value>);

impl<S: Send + Sync> FromRequestParts<S> for QueryValues {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(Self(
            query_pairs(&parts.uri)?
                .into_iter()
                .map(|(name, value)| (name, json!(value)))
                .collect(),
        ))
    }
}

/// The parameters of a query, as they came.
///
/// # Errors
/// 422 when it cannot be read.
pub fn query_pairs(uri: &Uri) -> Result<Vec<(String, String)>, Error> {
    let read = Query::try_from_uri(uri).map(|Query(pairs)| pairs);
    read.map_err(|error| {
        Error::Invalid(vec![Fault {
            part: Part::Query,
            path: Vec::new(),
            rule: Rule::Refused(error.body_text()),
            given: Value::Null,
        }])
    })
}

/// Which page of a list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub struct PageParams {
    /// How many entries to skip.
    #[param(minimum = 0, default = 0)]
    offset: Option<i64>,
    /// How many entries to return.
    #[param(minimum = 1, maximum = 100, default = 10)]
    limit: Option<i32>,
    /// Only entries after the one of this id, the last of the page before; excludes offset. What comes
    /// or leaves meanwhile makes no page skip or repeat an entry.
    after: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        page(parts, state, |fields| fields.id("after")).await
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Page<Uuid> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        page(parts, state, |fields| fields.uuid("after")).await
    }
}

async fn page<Id>(
    parts: &mut Parts,
    state: &(impl Send + Sync),
    id: impl FnOnce(&mut Fields<'_>) -> Id,
) -> Result<Page<Id>, Error> {
    let QueryValues(values) = QueryValues::from_request_parts(parts, state).await?;
    let mut fields = Fields::of_query(&values);
    let offset = fields.integer("offset", 0, 0, i64::MAX);
    let limit = fields.int("limit", 10, 1, 100);
    let after = fields.optional("after").is_some().then(|| id(&mut fields));
    if after.is_some() && offset > 0 {
        fields.refuse_as("offset", "offset and after exclude each other");
    }
    fields.finish()?;
    Ok(Page {
        offset,
        limit,
        after,
    })
}

/// The `subscription_id` of the query, by which a list is narrowed.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; queries are read field by field")]
pub struct OfSubscription {
    /// Only those of this subscription; none when there is no such subscription.
    subscription_id: Option<String>,
}

/// An id in the query that narrows a list, if it is given.
///
/// # Errors
/// When it cannot be an id.
pub fn narrowed_by(
    query: &Map<String, Value>,
    name: &'static str,
) -> Result<Option<String>, Error> {
    let mut fields = Fields::of_query(query);
    let id = fields.optional(name).is_some().then(|| fields.id(name));
    fields.finish()?;
    Ok(id)
}

/// A body that is JSON, or has no content type, of at most so many bytes.
#[derive(Debug)]
pub struct JsonBytes<const LIMIT: usize = SMALL>(pub Bytes);

impl<const LIMIT: usize> FromRequest<App> for JsonBytes<LIMIT> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self, Error> {
        let (parts, body) = request.into_parts();
        let bytes = body::read(&parts.headers, body, LIMIT, app).await?;
        if bytes.is_empty() {
            return Err(Error::fault(Vec::new(), Rule::Required));
        }
        check_is_json(&parts.headers, &bytes)?;
        Ok(Self(bytes))
    }
}

/// A JSON body as a tree, for the bodies of everything but publish.
#[derive(Debug)]
pub struct JsonBody<const LIMIT: usize = SMALL>(pub Value);

impl<const LIMIT: usize> FromRequest<App> for JsonBody<LIMIT> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self, Error> {
        let JsonBytes(bytes) = JsonBytes::<LIMIT>::from_request(request, app).await?;
        let length = bytes.len();
        let parse = move || parse_json(&bytes);
        app.budget.work(length, parse).await?.map(Self)
    }
}

/// A JSON body as a tree, or an empty object where there is none, whatever the content type says then.
#[derive(Debug)]
pub struct OptionalJsonBody(pub Value);

impl FromRequest<App> for OptionalJsonBody {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self, Error> {
        let (parts, body) = request.into_parts();
        let bytes = body::read(&parts.headers, body, SMALL, app).await?;
        if bytes.is_empty() {
            return Ok(Self(json!({})));
        }
        check_is_json(&parts.headers, &bytes)?;
        parse_json(&bytes).map(Self)
    }
}

/// Check that a body is JSON, as far as its content type says.
///
/// # Errors
/// 422 when it is something else.
pub fn check_is_json(headers: &HeaderMap, bytes: &[u8]) -> Result<(), Error> {
    if is_json(headers) {
        return Ok(());
    }
    let rule = Rule::Is(Form::JsonBody);
    let fault = Fault::body(Vec::new(), rule, given::bytes(bytes));
    Err(Error::Invalid(vec![fault]))
}

/// The media type of a request, in lower case, without parameters.
#[must_use]
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("?");
    Some(
        value
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase(),
    )
}

/// Whether a body is JSON, as far as its content type says, or has none.
#[must_use]
pub fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_none_or(|media_type| {
        media_type == "application/json"
            || (media_type.starts_with("application/") && media_type.ends_with("+json"))
    })
}
