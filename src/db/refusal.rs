//! Calls that Postgres broke off though nothing is wrong with them.

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

/// Why Postgres broke a call off that may be made again at once: nothing of it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Deadlock,
    SerializationFailure,
    /// A migration replaced what the session had planned with.
    StalePlan,
    /// What the connection prepared is not there, or is another's: the session is a pooler's.
    ForeignSession,
}

impl Refusal {
    /// Its name in the documentation of Postgres, for logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deadlock => "deadlock_detected",
            Self::SerializationFailure => "serialization_failure",
            Self::StalePlan => "stale_plan",
            Self::ForeignSession => "foreign_session",
        }
    }

    pub(super) fn of(error: &sqlx::Error) -> Option<Self> {
        let error = error.as_database_error()?;
        let code = error.code();
        Some(match code.as_deref()? {
            "40P01" => Self::Deadlock,
            "40001" => Self::SerializationFailure,
            "XX000" if is_stale(error) => Self::StalePlan,
            "0A000" if error.message().contains("cached plan must not change") => Self::StalePlan,
            // a routine that still runs calls one that was replaced
            "42804" | "42883" if is_within_a_routine(error) => Self::StalePlan,
            // no such prepared statement; one of that name; one with other parameters
            "26000" | "42P05" => Self::ForeignSession,
            "08P01" if error.message().starts_with("bind message") => Self::ForeignSession,
            _ => return None,
        })
    }
}

fn is_within_a_routine(error: &dyn DatabaseError) -> bool {
    error
        .try_downcast_ref::<PgDatabaseError>()
        .and_then(PgDatabaseError::r#where)
        .is_some_and(|context| context.contains("PL/pgSQL function pubsub."))
}

/// Postgres has no code of its own for it. Seen: "cache lookup failed for function 4711" and "could not
/// open relation with OID 4711".
fn is_stale(error: &dyn DatabaseError) -> bool {
    let message = error.message();
    message.starts_with("cache lookup failed for") || message.starts_with("could not open relation")
}
