//! The one error of the service, and the only place that turns a failure into an HTTP status.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use std::sync::Arc;
use utoipa::ToSchema;

use crate::given;

/// Most faults that one answer lists.
pub const MAX_FAULTS: usize = 100;

/// One thing that is wrong with a request, in the shape of the Python original.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Fault {
    /// What kind of fault it is, such as `missing` or `less_than_equal`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Where: `body`, `query` or `path`, then field names and positions.
    #[serde(serialize_with = "given::serialize_place")]
    #[schema(value_type = Vec<Place>)]
    pub loc: Vec<Value>,
    /// What is wrong, for people.
    pub msg: String,
    /// The value that was given, or the beginning of a long one.
    #[serde(serialize_with = "given::serialize")]
    pub input: Value,
    /// The limits that apply, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ctx: Option<Value>,
}

/// A step of the place of a fault.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum Place {
    /// `body`, `query`, `path` or `header`, or the name of a field.
    Name(String),
    /// A position in a list.
    Position(u64),
}

/// Everything that can go wrong while a request is answered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The request does not have the right form.
    #[error("invalid request")]
    Invalid(Vec<Fault>),
    /// No token, or not the credentials for one.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// A token that is not valid, or not any more.
    #[error("{0}")]
    InvalidToken(&'static str),
    /// The token lacks the scope.
    #[error("{message}")]
    Forbidden {
        /// What is wrong, for people.
        message: String,
        /// Resource and action of a scope that is needed, if that is all.
        needed: Option<(&'static str, &'static str)>,
    },
    /// Too much of this at a time; the client may retry.
    #[error("{0}")]
    TooMany(&'static str),
    /// The engine or a handler refuses with this status.
    #[error("{message}")]
    Refused {
        /// Status of the answer.
        status: StatusCode,
        /// What is wrong, for people.
        message: String,
    },
    /// The engine refuses because of some of what the request names.
    #[error("{message}")]
    Conflict {
        /// What is wrong, for people.
        message: String,
        /// What it is about.
        about: Vec<Value>,
    },
    /// Too many requests are being answered; the client may retry.
    #[error("{0}")]
    Busy(&'static str),
    /// The database cannot be reached or is too busy; the client may retry.
    #[error("database is unavailable")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// A statement took longer than its limit.
    #[error("the database took too long")]
    Timeout(#[source] Arc<sqlx::Error>),
    /// A defect.
    #[error("internal server error")]
    Internal(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

#[derive(Serialize)]
struct Detail<T> {
    detail: T,
}

#[derive(Serialize)]
struct Conflict<'a> {
    detail: &'a str,
    about: &'a [Value],
}

/// What caused a 5xx answer, for the request log.
#[derive(Clone)]
pub struct Cause(pub Arc<Error>);

impl Error {
    /// Refuse one field of the body, or what a path of keys and positions leads to in it.
    #[must_use]
    pub fn field(name: &str, path: Vec<Value>, message: &str) -> Self {
        let mut loc = vec![json!("body"), json!(name)];
        loc.extend(path);
        Self::Invalid(vec![Fault {
            kind: "value_error",
            loc,
            msg: format!("Value error, {message}"),
            input: Value::Null,
            ctx: Some(json!({"error": {}})),
        }])
    }

    /// Add what the body held where the engine found a fault.
    #[must_use]
    pub fn with_input_of(mut self, body: &Value) -> Self {
        if let Self::Invalid(faults) = &mut self {
            for fault in faults.iter_mut().filter(|fault| fault.input.is_null()) {
                let mut path = fault.loc.iter().skip(1);
                fault.input = path
                    .try_fold(body, |value, step| match step {
                        Value::String(key) => value.get(key),
                        step => value.get(usize::try_from(step.as_u64()?).ok()?),
                    })
                    .map(given::value)
                    .unwrap_or_default();
            }
        }
        self
    }

    /// Of a field that the engine refuses: it came in the query.
    #[must_use]
    pub fn in_query(mut self, query: &Map<String, Value>) -> Self {
        if let Self::Invalid(faults) = &mut self {
            for fault in faults {
                let name = fault.loc.get(1).and_then(Value::as_str).unwrap_or_default();
                fault.input = query.get(name).cloned().unwrap_or_default();
                if let Some(place) = fault.loc.first_mut() {
                    *place = json!("query");
                }
            }
        }
        self
    }

    /// `WWW-Authenticate` (RFC 6750, section 3), of nothing that a client said.
    fn challenge(&self) -> Option<HeaderValue> {
        match self {
            Self::Unauthorized(_) => Some(HeaderValue::from_static("Bearer")),
            Self::InvalidToken(text) => {
                let challenge =
                    format!("Bearer error=\"invalid_token\", error_description=\"{text}\"");
                HeaderValue::from_str(&challenge).ok()
            }
            Self::Forbidden { needed, .. } => {
                let scope = needed.map_or_else(String::new, |(resource, action)| {
                    format!(", scope=\"{resource}:{action}\"")
                });
                let challenge = format!("Bearer error=\"insufficient_scope\"{scope}");
                HeaderValue::from_str(&challenge).ok()
            }
            _ => None,
        }
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthorized(_) | Self::InvalidToken(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Refused { status, .. } => *status,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::Busy(_) | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let Some(database) = error
            .as_database_error()
            .and_then(|database| database.try_downcast_ref::<PgDatabaseError>())
        else {
            return match error {
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed => Self::Unavailable(Arc::new(error)),
                _ => Self::Internal(Arc::new(error)),
            };
        };
        let code = database.code();
        if let Some(status) = code
            .strip_prefix("PS")
            .and_then(|code| code.parse::<u16>().ok())
        {
            let message = database.message().to_owned();
            let field = database.column();
            // where the fault is inside the field, or what a conflict is about
            let detail: Vec<Value> = database
                .detail()
                .and_then(|detail| serde_json::from_str(detail).ok())
                .unwrap_or_default();
            return match (field, StatusCode::from_u16(status)) {
                (Some(field), Ok(StatusCode::UNPROCESSABLE_ENTITY)) => {
                    Self::field(field, detail, &message)
                }
                (_, Ok(StatusCode::CONFLICT)) if !detail.is_empty() => Self::Conflict {
                    message,
                    about: detail,
                },
                (_, Ok(status)) => Self::Refused { status, message },
                (_, Err(_)) => Self::Internal(Arc::new(error)),
            };
        }
        // it ended the connection, whatever its code: such as one that could not even start
        let ended = matches!(database.severity(), PgSeverity::Fatal | PgSeverity::Panic);
        match code {
            _ if ended => Self::Unavailable(Arc::new(error)),
            "57014" => Self::Timeout(Arc::new(error)),
            // lock not available, serialization failure, deadlock; read-only standby after a failover
            "55P03" | "40001" | "40P01" | "25006" => Self::Unavailable(Arc::new(error)),
            // an id of ours is given once, and whoever names one is asked first
            "23505" if database.schema() == Some("pubsub_data") => Self::Refused {
                status: StatusCode::SERVICE_UNAVAILABLE,
                message: crate::db::SEQUENCES_BEHIND.to_owned(),
            },
            // connection, resources, operator intervention; no such password, role or database
            _ if ["08", "53", "57P", "28", "3D"]
                .iter()
                .any(|class| code.starts_with(class)) =>
            {
                Self::Unavailable(Arc::new(error))
            }
            // data exceptions: a value that Postgres cannot hold
            _ if code.starts_with("22") || code == "54000" || code == "54001" => {
                Self::Invalid(vec![Fault {
                    kind: "value_error",
                    loc: vec![json!("body")],
                    msg: "Value error, a value cannot be stored by Postgres".to_owned(),
                    input: Value::Null,
                    ctx: Some(json!({"error": {}})),
                }])
            }
            _ => Self::Internal(Arc::new(error)),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = match &self {
            Self::Invalid(faults) => {
                let detail = faults.get(..MAX_FAULTS).unwrap_or(faults);
                (status, Json(Detail { detail })).into_response()
            }
            Self::Conflict { message, about } => {
                let detail = message;
                (status, Json(Conflict { detail, about })).into_response()
            }
            other => (
                status,
                Json(Detail {
                    detail: other.to_string(),
                }),
            )
                .into_response(),
        };
        match &self {
            Self::Unauthorized(_) | Self::InvalidToken(_) | Self::Forbidden { .. } => {
                if let Some(challenge) = self.challenge() {
                    response
                        .headers_mut()
                        .insert(header::WWW_AUTHENTICATE, challenge);
                }
            }
            Self::Busy(_) | Self::Unavailable(_) | Self::TooMany(_) => {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        // to be busy is no failure
        if status.is_server_error() && !matches!(self, Self::Busy(_)) {
            response.extensions_mut().insert(Cause(Arc::new(self)));
        }
        response
    }
}
