//! Errors in the words of FastAPI, on which the Python original and other systems stand: `{"detail": ...}`,
//! a text or a list of faults.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::doors::envelope::status;
use crate::doors::given;
use crate::error::{Count, Error, Fault, Form, MAX_FAULTS, Part, Rule, Step};

/// One thing that is wrong with a request, in the shape of the Python original.
#[derive(Serialize, ToSchema)]
#[schema(as = Fault)]
pub struct FaultBody {
    /// What kind of fault it is, such as `missing` or `less_than_equal`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Where: `body`, `query` or `path`, then field names and positions.
    #[schema(value_type = Vec<Place>)]
    loc: Vec<Value>,
    /// What is wrong, for people.
    msg: String,
    /// The value that was given, or the beginning of a long one.
    input: Value,
    /// The limits that apply, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ctx: Option<Value>,
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

/// Why a request was refused or failed, whatever its status.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    /// What is wrong.
    detail: ErrorDetail,
    /// What a conflict is about, such as the receipts that are stale.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    about: Option<Vec<String>>,
}

/// What is wrong: a text for people, or, of status 422, mostly a list of faults.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum ErrorDetail {
    /// In one text.
    #[schema(example = "Topic not found")]
    Text(String),
    /// Every fault with its place.
    Faults(Vec<FaultBody>),
}

/// An error as an answer.
#[must_use]
pub fn envelope(error: &Error) -> Response {
    let status = status(error);
    match error {
        Error::Invalid(faults) => {
            let shown = faults.iter().take(MAX_FAULTS).map(FaultBody::of);
            let detail: Vec<_> = shown.collect();
            (status, Json(Detail { detail })).into_response()
        }
        Error::Conflict { message, about } => {
            let detail = message;
            (status, Json(Conflict { detail, about })).into_response()
        }
        other => {
            let detail = other.to_string();
            (status, Json(Detail { detail })).into_response()
        }
    }
}

/// What an error says where there is no answer of its own.
#[must_use]
pub fn body(error: &Error) -> Value {
    match error {
        Error::Invalid(faults) => {
            let shown = faults.iter().take(MAX_FAULTS).map(FaultBody::of);
            json!({"detail": shown.collect::<Vec<_>>()})
        }
        other => json!({"detail": other.to_string()}),
    }
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

impl FaultBody {
    fn of(fault: &Fault) -> Self {
        let part = match fault.part {
            Part::Body => "body",
            Part::Query => "query",
            Part::Path => "path",
            Part::Header => "header",
        };
        let steps = fault.path.iter().map(|step| match step {
            Step::Field(name) => given::name(name),
            Step::Position(position) => json!(position),
        });
        let (kind, msg, ctx) = words(&fault.rule);
        Self {
            kind,
            loc: std::iter::once(json!(part)).chain(steps).collect(),
            msg,
            input: given::value(&fault.given),
            ctx,
        }
    }
}

/// Where a fault is, from the part of the request on, and what is wrong there.
#[must_use]
pub fn told(fault: &Fault) -> (Vec<Value>, String) {
    let FaultBody { loc, msg, .. } = FaultBody::of(fault);
    (loc, msg)
}

/// Type, text and limits of a fault.
fn words(rule: &Rule) -> (&'static str, String, Option<Value>) {
    match rule {
        Rule::Required => ("missing", "Field required".to_owned(), None),
        Rule::Known => {
            let msg = "Extra inputs are not permitted";
            ("extra_forbidden", msg.to_owned(), None)
        }
        Rule::Is(form) => {
            let (kind, msg) = of_form(*form);
            (kind, msg.to_owned(), None)
        }
        Rule::Reads(form, complaint) => {
            let (kind, msg) = as_form(*form);
            match complaint {
                Some(complaint) => {
                    let ctx = json!({"error": complaint});
                    (kind, format!("{msg}, {complaint}"), Some(ctx))
                }
                None => (kind, msg.to_owned(), None),
            }
        }
        Rule::Whole => {
            let msg = "Input should be a valid integer, got a number with a fractional part";
            ("int_from_float", msg.to_owned(), None)
        }
        Rule::AtLeast(count, least, actual) => bound(*count, true, *least, *actual),
        Rule::AtMost(count, most, actual) => bound(*count, false, *most, *actual),
        Rule::From(least) => {
            let msg = format!("Input should be greater than or equal to {least}");
            ("greater_than_equal", msg, Some(json!({"ge": least})))
        }
        Rule::To(most) => {
            let msg = format!("Input should be less than or equal to {most}");
            ("less_than_equal", msg, Some(json!({"le": most})))
        }
        Rule::Matches(pattern) => {
            let msg = format!("String should match pattern '{pattern}'");
            (
                "string_pattern_mismatch",
                msg,
                Some(json!({"pattern": pattern})),
            )
        }
        Rule::OneOf(values) => {
            let msg = format!("Input should be {values}");
            ("literal_error", msg, Some(json!({"expected": values})))
        }
        Rule::Json(complaint) => {
            let ctx = json!({"error": complaint});
            ("json_invalid", "JSON decode error".to_owned(), Some(ctx))
        }
        Rule::Refused(text) => {
            let ctx = json!({"error": {}});
            ("value_error", format!("Value error, {text}"), Some(ctx))
        }
    }
}

fn of_form(form: Form) -> (&'static str, &'static str) {
    match form {
        Form::Text => ("string_type", "Input should be a valid string"),
        Form::Integer => ("int_type", "Input should be a valid integer"),
        Form::Boolean => ("bool_type", "Input should be a valid boolean"),
        Form::Uuid => (
            "uuid_type",
            "UUID input should be a string, bytes or UUID object",
        ),
        Form::Time => ("datetime_type", "Input should be a valid datetime"),
        Form::List => ("list_type", "Input should be a valid list"),
        Form::Object => ("dict_type", "Input should be a valid dictionary"),
        Form::Fields => (
            "model_attributes_type",
            "Input should be a valid dictionary or object to extract fields from",
        ),
        Form::JsonBody => (
            "model_attributes_type",
            "Input should be a valid dictionary or object to extract fields from; \
             set Content-Type: application/json",
        ),
    }
}

fn as_form(form: Form) -> (&'static str, &'static str) {
    match form {
        Form::Integer => (
            "int_parsing",
            "Input should be a valid integer, unable to parse string as an integer",
        ),
        Form::Boolean => (
            "bool_parsing",
            "Input should be a valid boolean, unable to interpret input",
        ),
        Form::Uuid => ("uuid_parsing", "Input should be a valid UUID"),
        Form::Time => (
            "datetime_parsing",
            "Input should be a valid datetime, such as 2026-01-02T03:04:05Z",
        ),
        other => of_form(other),
    }
}

/// Type, text and limits of too few or too many.
fn bound(
    count: Count,
    is_least: bool,
    limit: usize,
    actual: Option<usize>,
) -> (&'static str, String, Option<Value>) {
    let is_text = matches!(count, Count::Characters | Count::NameCharacters);
    let kind = match (is_text, is_least) {
        (true, true) => "string_too_short",
        (true, false) => "string_too_long",
        (false, true) => "too_short",
        (false, false) => "too_long",
    };
    let (at, name) = if is_least {
        ("least", "min_length")
    } else {
        ("most", "max_length")
    };
    let plural = if limit == 1 { "" } else { "s" };
    let but = actual.map_or_else(String::new, |actual| format!(", not {actual}"));
    let items = format!("should have at {at} {limit} item{plural} after validation{but}");
    let msg = match count {
        Count::Characters => format!("String should have at {at} {limit} character{plural}"),
        Count::NameCharacters => {
            format!("The name of an attribute should have at {at} {limit} character{plural}")
        }
        Count::Items => format!("List {items}"),
        Count::Entries => format!("Dictionary {items}"),
        Count::Deliveries => format!("At {at} {limit} deliveries can be settled at once{but}"),
    };
    let ctx = match actual {
        Some(actual) => json!({name: limit, "actual_length": actual}),
        None => json!({name: limit}),
    };
    (kind, msg, Some(ctx))
}
