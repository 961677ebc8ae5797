//! What a failure of the database is to whoever called. The functions raise what they refuse as `PS`
//! and a number, the status of an answer.

use std::iter::once;
use std::sync::Arc;

use serde_json::Value;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::error::{Error, Rule, Step};

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
            return match (field, status) {
                (Some(field), 422) => {
                    let path = once(Step::from(field)).chain(detail.iter().filter_map(step));
                    Self::fault(path.collect(), Rule::Refused(message))
                }
                (_, 409) if !detail.is_empty() => Self::Conflict {
                    message,
                    about: detail,
                },
                (_, status @ 400..600) => Self::Refused { status, message },
                _ => Self::Internal(Arc::new(error)),
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
                status: 503,
                message: super::SEQUENCES_BEHIND.to_owned(),
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
                let text = "a value cannot be stored by Postgres".to_owned();
                Self::fault(Vec::new(), Rule::Refused(text))
            }
            _ => Self::Internal(Arc::new(error)),
        }
    }
}

/// A step to a fault inside a field.
fn step(value: &Value) -> Option<Step> {
    match value {
        Value::String(name) => Some(Step::from(name.as_str())),
        value => usize::try_from(value.as_u64()?).ok().map(Step::from),
    }
}
