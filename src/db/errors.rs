//! What went wrong, in the words of the database.

use std::error::Error;
use std::sync::Arc;

use refinery_core::error::Kind;
use sqlx::error::DatabaseError;

/// An error and its causes in one line, without the place in Postgres' own source that sqlx adds.
#[must_use]
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = words(error);
    let mut last = error;
    while of_the_database(last).is_none()
        && let Some(cause) = last.source()
    {
        let cause_text = words(cause);
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        last = cause;
    }
    text.replace('\n', " ")
}

fn words(error: &(dyn Error + 'static)) -> String {
    if let Some(error) = of_the_database(error) {
        return error.message().to_owned();
    }
    // its own text repeats that of its cause
    if let Some(Kind::Connection(what, _)) = error
        .downcast_ref::<refinery_core::Error>()
        .map(refinery_core::Error::kind)
    {
        return what.clone();
    }
    error.to_string()
}

/// What the database said, shared or not. What causes it is the same once more, with a line.
fn of_the_database<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a dyn DatabaseError> {
    let shared = || error.downcast_ref::<Arc<sqlx::Error>>().map(Arc::as_ref);
    let defect = || {
        let shared = error.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
        shared.downcast_ref::<sqlx::Error>()
    };
    error
        .downcast_ref::<sqlx::Error>()
        .or_else(shared)
        .or_else(defect)
        .and_then(sqlx::Error::as_database_error)
}

/// Whether the database ended this for the sake of another transaction.
pub(super) fn is_deadlock(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = of_the_database(error) {
        return error.code().as_deref() == Some("40P01");
    }
    error.source().is_some_and(is_deadlock)
}
