//! The health of the database: `list_health`.

use sqlx::{FromRow, PgExecutor};

/// One fact about the database, such as the size of a table.
#[derive(Clone, Debug, FromRow)]
pub struct Fact {
    /// What it is, such as `table_bytes`.
    pub name: String,
    /// What the subject is: `table`, `slot` or `subscription`.
    pub subject_kind: Option<String>,
    /// Whose fact it is, where there are several.
    pub subject: Option<String>,
    /// None where this role may not see it.
    pub value: Option<f64>,
    /// What the value counts.
    pub unit: String,
    /// What the fact tells.
    pub meaning: String,
    /// What is wrong and what to do, while the value is past its bound.
    pub warning: Option<String>,
}

/// All facts.
///
/// # Errors
/// When the database fails.
pub async fn list(executor: impl PgExecutor<'_>) -> Result<Vec<Fact>, sqlx::Error> {
    sqlx::query_as("select * from pubsub.list_health()")
        .fetch_all(executor)
        .await
}
