//! What went wrong, in the words of the database.

use std::error::Error;

use refinery_core::error::Kind;

/// An error and its causes in one line, without the place in Postgres' own source that sqlx adds.
#[must_use]
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = words(error);
    let mut last = error;
    while !is_of_the_database(last)
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
    if let Some(sqlx::Error::Database(error)) = error.downcast_ref() {
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

/// What causes one is the same once more, with a line.
fn is_of_the_database(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(sqlx::Error::Database(_)))
}

/// Whether the database ended this for the sake of another transaction.
pub(super) fn is_deadlock(error: &(dyn Error + 'static)) -> bool {
    if let Some(sqlx::Error::Database(error)) = error.downcast_ref() {
        return error.code().as_deref() == Some("40P01");
    }
    error.source().is_some_and(is_deadlock)
}
