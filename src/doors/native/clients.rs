//! `/clients`: create, get, list, update, delete, and new API keys.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::scopes::{ClientsCreate, ClientsDelete, ClientsRead, ClientsUpdate};
use crate::auth::{api_keys, scopes, secrets};
use crate::db::clients::{Client, ClientSettings};
use crate::db::{self, Page, Timestamp};
use crate::doors::caller::{Caller, CallerOnSome, Grants};
use crate::doors::extract::{JsonBody, PageParams, PathUuid};
use crate::doors::fields::Fields;
use crate::doors::native::openapi::{Changed, CommonErrors, NotFound, TooLarge};
use crate::error::Error;

/// Most seconds that the API key before stays good.
const OVERLAP_MAX_SECONDS: i32 = 7 * 24 * 3600;

/// A new client.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"name": "My Application",
    "scopes": "topics:publish:user-events subscriptions:read", "is_active": true, "api_key": true}))]
pub struct CreateClient {
    #[serde(flatten)]
    settings: ClientBody,
    /// Whether to make an API key beside its secret.
    #[schema(nullable = false, default = false)]
    api_key: Option<bool>,
}

/// The settings of a client.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"name": "My Application",
    "scopes": "topics:publish:user-events subscriptions:read", "is_active": true}))]
pub struct ClientBody {
    /// Its name, for people.
    #[schema(example = "My Application", min_length = 1, max_length = 1024)]
    name: String,
    /// What it may do, separated by spaces: `*`, `resource:action` or `resource:action:object`, where an
    /// object that ends in `*` is the beginning of ids.
    #[schema(
        example = "topics:publish:user-events subscriptions:read",
        max_length = 1024
    )]
    scopes: String,
    /// Whether it can get tokens. Left out: true for a new client, unchanged for an update.
    #[schema(nullable = false)]
    is_active: Option<bool>,
}

/// A new client. The secret is shown this once, and so is the key.
#[derive(Serialize, ToSchema)]
pub struct NewClient {
    /// Its id.
    id: Uuid,
    /// Its secret.
    secret: String,
    /// Its API key, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    api_key: Option<String>,
}

/// How a new API key takes the place of the one before.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"overlap_seconds": 3600}))]
pub struct NewCredentials {
    /// How long the API key that the client has now stays good.
    #[schema(nullable = false, default = 0, minimum = 0, maximum = 604_800)]
    overlap_seconds: Option<i32>,
}

/// A new API key of a client. It is shown this once.
#[derive(Serialize, ToSchema)]
pub struct Credentials {
    /// The key.
    api_key: String,
    /// Until when the one before is good; null when there was none, or it is not any more.
    previous_valid_until: Option<Timestamp>,
}

/// A page of clients.
#[derive(Serialize, ToSchema)]
pub struct ClientList {
    /// The clients, in creation order.
    data: Vec<Client>,
}

/// Create a client
///
/// Its scopes must be covered by those of the caller's token.
#[utoipa::path(post, path = "/clients", tag = "clients", request_body = CreateClient,
    responses((status = 201, body = NewClient), TooLarge, CommonErrors))]
pub async fn create_client(
    _: Caller<ClientsCreate>,
    grants: Grants,
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<NewClient>), Error> {
    let mut fields = Fields::of_body(&body)?;
    let settings = client_settings(&mut fields);
    let api_key = fields.boolean("api_key").unwrap_or_default();
    fields.finish()?;
    may_grant(&grants, &settings.scopes)?;
    let (id, secret) = (Uuid::now_v7(), secrets::generate(16));
    let api_key = api_key.then(api_keys::generate);
    let key_hash = api_key.as_deref().map(secrets::hash);
    let hash = secrets::hash(&secret);
    db::clients::create(&app.database, id, &settings, &hash, key_hash.as_deref()).await?;
    let made = NewClient {
        id,
        secret,
        api_key,
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Get a client
#[utoipa::path(get, path = "/clients/{id}", tag = "clients", params(("id" = Uuid, Path)),
    responses((status = 200, body = Client), NotFound, CommonErrors))]
pub async fn get_client(
    _: Caller<ClientsRead>,
    State(app): State<App>,
    PathUuid(id): PathUuid,
) -> Result<Json<Client>, Error> {
    Ok(Json(db::clients::get(&app.database, id).await?))
}

/// List clients
#[utoipa::path(get, path = "/clients", tag = "clients", params(PageParams),
    responses((status = 200, body = ClientList), CommonErrors))]
pub async fn list_clients(
    caller: CallerOnSome<ClientsRead>,
    State(app): State<App>,
    page: Page<Uuid>,
) -> Result<Json<ClientList>, Error> {
    Ok(Json(ClientList {
        data: db::clients::list(&app.database, page, caller.objects().as_deref()).await?,
    }))
}

/// Replace a client's settings and revoke its tokens
///
/// Its scopes, those before and those after, must be covered by those of the caller's token.
#[utoipa::path(put, path = "/clients/{id}", tag = "clients", params(("id" = Uuid, Path)),
    request_body = ClientBody,
    responses((status = 200, body = Client), NotFound, Changed, TooLarge, CommonErrors))]
pub async fn update_client(
    _: Caller<ClientsUpdate>,
    grants: Grants,
    State(app): State<App>,
    PathUuid(id): PathUuid,
    JsonBody(body): JsonBody,
) -> Result<Json<Client>, Error> {
    let mut fields = Fields::of_body(&body)?;
    let settings = client_settings(&mut fields);
    fields.finish()?;
    may_grant(&grants, &settings.scopes)?;
    let version = manageable(&app, &grants, id).await?;
    let client = db::clients::update(&app.database, id, &settings, version).await?;
    app.revoke_tokens(id, Some(client.token_version)).await;
    Ok(Json(client))
}

/// Delete a client and revoke its tokens
///
/// Its scopes must be covered by those of the caller's token.
#[utoipa::path(delete, path = "/clients/{id}", tag = "clients", params(("id" = Uuid, Path)),
    responses((status = 204), NotFound, Changed, CommonErrors))]
pub async fn delete_client(
    _: Caller<ClientsDelete>,
    grants: Grants,
    State(app): State<App>,
    PathUuid(id): PathUuid,
) -> Result<StatusCode, Error> {
    let version = manageable(&app, &grants, id).await?;
    db::clients::delete(&app.database, id, version).await?;
    app.revoke_tokens(id, None).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a client a new API key
///
/// The one that it has stays good for `overlap_seconds`, and one before that ends now; its secret and its
/// tokens stay. The client's scopes must be covered by those of the caller's token.
#[utoipa::path(post, path = "/clients/{id}/credentials", tag = "clients",
    params(("id" = Uuid, Path)), request_body = NewCredentials,
    responses((status = 201, body = Credentials), NotFound, Changed, TooLarge, CommonErrors))]
pub async fn create_credentials(
    _: Caller<ClientsUpdate>,
    grants: Grants,
    State(app): State<App>,
    PathUuid(id): PathUuid,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Credentials>), Error> {
    let mut fields = Fields::of_body(&body)?;
    let overlap_seconds = fields.int("overlap_seconds", 0, 0, OVERLAP_MAX_SECONDS);
    fields.finish()?;
    let version = manageable(&app, &grants, id).await?;
    let api_key = api_keys::generate();
    let hash = secrets::hash(&api_key);
    let previous_valid_until =
        db::clients::rotate_api_key(&app.database, id, &hash, overlap_seconds, version).await?;
    app.recheck_api_keys(id).await;
    let made = Credentials {
        api_key,
        previous_valid_until,
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// A caller grants only what its own token covers.
fn may_grant(grants: &Grants, scopes: &str) -> Result<(), Error> {
    match grants.beyond(scopes) {
        Some(scope) => Err(beyond(format!(
            "Insufficient scope: {scope} is more than your own token covers"
        ))),
        None => Ok(()),
    }
}

/// A caller manages only clients whose scopes its own token covers. The version of the client for which
/// that was found; none when it holds for any.
async fn manageable(app: &App, grants: &Grants, id: Uuid) -> Result<Option<i32>, Error> {
    if grants.beyond("*").is_none() {
        return Ok(None);
    }
    let client = db::clients::get(&app.database, id).await?;
    match grants.beyond(&client.scopes) {
        Some(_) => Err(beyond(
            "Insufficient scope: the client has more than your own token covers".to_owned(),
        )),
        None => Ok(Some(client.token_version)),
    }
}

fn beyond(message: String) -> Error {
    Error::Forbidden {
        message,
        needed: None,
    }
}

fn client_settings(fields: &mut Fields<'_>) -> ClientSettings {
    let name = fields.trimmed("name");
    let scopes = fields.trimmed("scopes");
    if let Err(reason) = scopes::validate(&scopes) {
        fields.refuse_as("scopes", reason.to_string());
    }
    ClientSettings {
        name,
        scopes,
        is_active: fields.boolean("is_active"),
    }
}
