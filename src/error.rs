//! Everything that can go wrong while a call is answered, in the words of no door: the envelope of each
//! says it in its own.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// Most faults that one answer lists.
pub const MAX_FAULTS: usize = 100;

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// In which part of the request.
    pub part: Part,
    /// Where in it, from the outside in.
    pub path: Vec<Step>,
    /// What does not hold.
    pub rule: Rule,
    /// The value that was given.
    pub given: Value,
}

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its body.
    Body,
    /// Its query.
    Query,
    /// Its path.
    Path,
    /// Its headers.
    Header,
}

/// A step to the place of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into a field.
    Field(String),
    /// To a position in a list, or of a character.
    Position(usize),
}

impl From<&str> for Step {
    fn from(name: &str) -> Self {
        Self::Field(name.to_owned())
    }
}

impl From<usize> for Step {
    fn from(position: usize) -> Self {
        Self::Position(position)
    }
}

/// What a value has to be, with its limits.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// It has to be there.
    Required,
    /// Nobody knows it.
    Known,
    /// It has to be of this form.
    Is(Form),
    /// It has to read as this form; the reader's complaint.
    Reads(Form, Option<String>),
    /// It has to be a number without a fraction.
    Whole,
    /// It has to have at least so many; how many it has, where that is told.
    AtLeast(Count, usize, Option<usize>),
    /// It has to have at most so many.
    AtMost(Count, usize, Option<usize>),
    /// It must not be less.
    From(i64),
    /// It must not be more.
    To(i64),
    /// It has to match a pattern.
    Matches(&'static str),
    /// It has to be one of these.
    OneOf(&'static str),
    /// It has to be JSON; the parser's complaint.
    Json(String),
    /// Something else, in a sentence without its subject or a whole one.
    Refused(String),
}

/// A form of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
    /// A UUID.
    Uuid,
    /// A time of RFC 3339.
    Time,
    /// A list.
    List,
    /// An object with any fields.
    Object,
    /// An object with the fields of a request.
    Fields,
    /// A body whose content type says that it is JSON.
    JsonBody,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Characters of a text.
    Characters,
    /// Characters of the name of an attribute.
    NameCharacters,
    /// Elements of a list.
    Items,
    /// Entries of an object.
    Entries,
    /// Deliveries of a request.
    Deliveries,
}

impl Fault {
    /// In the body.
    #[must_use]
    pub fn body(path: Vec<Step>, rule: Rule, given: Value) -> Self {
        Self {
            part: Part::Body,
            path,
            rule,
            given,
        }
    }

    /// Of a part of the body that stands at a place.
    #[must_use]
    pub fn within(mut self, place: &[Step]) -> Self {
        self.path.splice(0..0, place.iter().cloned());
        self
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => f.write_str(name),
            Self::Position(position) => write!(f, "{position}"),
        }
    }
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
    /// The engine or a door refuses. The kind of refusal is a number of HTTP, as in the SQL functions.
    #[error("{message}")]
    Refused {
        /// From 400 on.
        status: u16,
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

/// What was asked for; none where it does not exist.
///
/// # Errors
/// Whatever else went wrong.
pub fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Err(Error::Refused { status: 404, .. }) => Ok(None),
        other => other.map(Some),
    }
}

impl Error {
    /// One fault of the body, of a value that is not at hand.
    #[must_use]
    pub fn fault(path: Vec<Step>, rule: Rule) -> Self {
        Self::Invalid(vec![Fault::body(path, rule, Value::Null)])
    }

    /// A refusal with the status of its kind.
    #[must_use]
    pub fn refused(status: u16, message: impl Into<String>) -> Self {
        Self::Refused {
            status,
            message: message.into(),
        }
    }

    /// The status that HTTP has for it.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Invalid(_) => 422,
            Self::Unauthorized(_) | Self::InvalidToken(_) => 401,
            Self::Forbidden { .. } => 403,
            Self::TooMany(_) => 429,
            Self::Refused { status, .. } => *status,
            Self::Conflict { .. } => 409,
            Self::Busy(_) | Self::Unavailable(_) => 503,
            Self::Timeout(_) => 504,
            Self::Internal(_) => 500,
        }
    }

    /// Whether somebody has to look: to be busy is no failure.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.status() >= 500 && !matches!(self, Self::Busy(_))
    }
}
