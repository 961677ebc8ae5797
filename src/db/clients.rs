//! Clients: `create_client`, `get_client`, `list_clients`, `update_client`, `delete_client`,
//! `client_credentials`, `renew_secret_hash`, `slow_hashes_exist`, `api_key_credentials`,
//! `rotate_api_key`.

use serde::Serialize;
use sqlx::{FromRow, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use super::database::Database;
use super::{Page, Timestamp};
use crate::error::Error;

/// A client, without its secret.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub struct Client {
    /// Its id.
    pub id: Uuid,
    /// Its name, for people.
    pub name: String,
    /// What it may do, separated by spaces.
    #[schema(example = "topics:publish:user-events subscriptions:read")]
    pub scopes: String,
    /// Whether it can get tokens.
    pub is_active: bool,
    /// Raised by every update, which revokes the tokens issued before.
    pub token_version: i32,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// The settings of a client.
#[derive(Debug)]
pub struct ClientSettings {
    /// Its name, for people.
    pub name: String,
    /// What it may do, separated by spaces.
    pub scopes: String,
    /// Whether it can get tokens; none leaves it as it is.
    pub is_active: Option<bool>,
}

/// What checking a secret or a token needs.
#[derive(Clone, Debug, FromRow)]
pub struct Credentials {
    /// What the client may do.
    pub scopes: String,
    /// Whether it can get tokens.
    pub is_active: bool,
    /// Tagged hash of its secret.
    pub secret_hash: String,
    /// The version that valid tokens carry.
    pub token_version: i32,
    /// When it was created.
    pub created_at: Timestamp,
}

/// Whom an API key belongs to.
#[derive(Clone, Debug, FromRow)]
pub struct KeyHolder {
    /// Tagged hash of the key.
    pub api_key_hash: String,
    /// The client.
    pub client_id: Uuid,
    /// What the client may do.
    pub scopes: String,
    /// Whether its keys are taken.
    pub is_active: bool,
}

/// Create a client, with an API key if there is a hash of one.
///
/// # Errors
/// When the database fails.
pub async fn create(
    executor: impl PgExecutor<'_>,
    id: Uuid,
    client: &ClientSettings,
    secret_hash: &str,
    api_key_hash: Option<&str>,
) -> Result<(), Error> {
    sqlx::query("select pubsub.create_client($1, $2, $3, $4, $5, $6)")
        .bind(id)
        .bind(&client.name)
        .bind(&client.scopes)
        .bind(client.is_active.unwrap_or(true))
        .bind(secret_hash)
        .bind(api_key_hash)
        .execute(executor)
        .await?;
    Ok(())
}

/// One client.
///
/// # Errors
/// 404 when there is none.
pub async fn get(database: &Database, id: Uuid) -> Result<Client, Error> {
    Ok(sqlx::query_as("select * from pubsub.get_client($1)")
        .bind(id)
        .fetch_one(database)
        .await?)
}

/// A page of the clients that may be seen; none for all.
///
/// # Errors
/// When the database fails.
pub async fn list(
    database: &Database,
    page: Page<Uuid>,
    allowed: Option<&[String]>,
) -> Result<Vec<Client>, Error> {
    let query = sqlx::query_as("select * from pubsub.list_clients($1, $2, $3, $4)");
    Ok(query
        .bind(page.offset)
        .bind(page.limit)
        .bind(page.after)
        .bind(allowed)
        .fetch_all(database)
        .await?)
}

/// Replace a client's settings and revoke its tokens, if it is still of this version.
///
/// # Errors
/// 404 when there is none, 409 when it was changed meanwhile.
pub async fn update(
    database: &Database,
    id: Uuid,
    client: &ClientSettings,
    version: Option<i32>,
) -> Result<Client, Error> {
    let query = sqlx::query_as("select * from pubsub.update_client($1, $2, $3, $4, $5)");
    Ok(query
        .bind(id)
        .bind(&client.name)
        .bind(&client.scopes)
        .bind(client.is_active)
        .bind(version)
        .fetch_one(database)
        .await?)
}

/// Delete a client, if it is still of this version.
///
/// # Errors
/// 404 when there is none, 409 when it was changed meanwhile.
pub async fn delete(database: &Database, id: Uuid, version: Option<i32>) -> Result<(), Error> {
    sqlx::query("select pubsub.delete_client($1, $2)")
        .bind(id)
        .bind(version)
        .execute(database)
        .await?;
    Ok(())
}

/// Store another hash of the same secret, unless it was changed meanwhile.
///
/// # Errors
/// When the database fails.
pub async fn renew_hash(
    database: &Database,
    id: Uuid,
    stored: &str,
    hash: &str,
) -> Result<(), Error> {
    sqlx::query("select pubsub.renew_secret_hash($1, $2, $3)")
        .bind(id)
        .bind(stored)
        .bind(hash)
        .execute(database)
        .await?;
    Ok(())
}

/// Whether the secret of some client has a slow hash.
///
/// # Errors
/// When the database fails.
pub async fn has_slow_hashes(database: &Database) -> Result<bool, Error> {
    let query = sqlx::query_scalar("select pubsub.slow_hashes_exist()");
    Ok(query.fetch_one(database).await?)
}

/// What checking a secret or a token needs, if there is such a client.
///
/// # Errors
/// When the database fails.
pub async fn credentials(database: &Database, id: Uuid) -> Result<Option<Credentials>, Error> {
    let query = sqlx::query_as("select * from pubsub.client_credentials($1)");
    Ok(query.bind(id).fetch_optional(database).await?)
}

/// Whom API keys belong to, by their hashes; nothing for those that nobody has.
///
/// # Errors
/// When the database fails.
pub async fn key_holders(database: &Database, hashes: &[String]) -> Result<Vec<KeyHolder>, Error> {
    let query = sqlx::query_as("select * from pubsub.api_key_credentials($1)");
    Ok(query.bind(hashes).fetch_all(database).await?)
}

/// Give a client another API key, if it is still of this version. Until when the one it has stays good;
/// none when it has none, or it ends now.
///
/// # Errors
/// 404 when there is none, 409 when it was changed meanwhile.
pub async fn rotate_api_key(
    database: &Database,
    id: Uuid,
    hash: &str,
    overlap_seconds: i32,
    version: Option<i32>,
) -> Result<Option<Timestamp>, Error> {
    let query = sqlx::query_scalar("select pubsub.rotate_api_key($1, $2, $3, $4)");
    Ok(query
        .bind(id)
        .bind(hash)
        .bind(overlap_seconds)
        .bind(version)
        .fetch_one(database)
        .await?)
}
