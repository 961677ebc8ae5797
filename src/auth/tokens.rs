//! Access tokens (RFC 7519, signed with HMAC): issuing them, and verifying them without asking the
//! database on every request.
//!
//! A token carries its client's `token_version`; an update or delete of the client makes it stale.
//! Versions are cached for four seconds, so other servers notice within five; this server is told by
//! [`Tokens::revoke`] and notices at once.

use std::sync::Arc;
use std::time::Duration;

use crate::db::database::Database;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use moka::future::Cache;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{scopes, secrets};
use crate::config::{Secret, Settings, TokenAlgorithm};
use crate::db;
use crate::error::Error;

const CACHED_CLIENTS: u64 = 100_000;
const CACHED_FOR: Duration = Duration::from_secs(4);
/// Longer than an answer that was under way can stay cached.
const REVOKED_FOR: Duration = Duration::from_secs(60);

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: Uuid,
    scope: String,
    ver: i32,
    iat: i64,
    exp: i64,
    #[serde(default)]
    iss: String,
    #[serde(default)]
    jti: String,
    #[serde(default)]
    client_id: String,
}

/// A client as the database says, as far as its tokens depend on it.
#[derive(Clone, Copy, Debug)]
enum ClientState {
    Gone,
    Known { version: i32, is_active: bool },
}

/// The client a valid token was issued to, and what it may do.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The client.
    pub client_id: Uuid,
    /// What the token allows.
    pub scopes: String,
}

/// A token that was issued.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct AccessToken {
    /// The token itself, for the header `Authorization: Bearer`.
    pub access_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    pub token_type: &'static str,
    /// Its life, in seconds.
    #[schema(example = 1800)]
    pub expires_in: i64,
    /// What it allows.
    pub scope: String,
}

/// Why no token was issued.
#[derive(Debug)]
pub enum Denied {
    /// Unknown client, wrong secret or inactive client; which one is not told.
    InvalidClient,
    /// A requested scope is not granted to the client.
    InvalidScope,
    /// The database failed.
    Failed(Error),
}

/// Issues and verifies tokens.
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    header: Header,
    validation: Validation,
    life_seconds: i64,
    states: Cache<Uuid, ClientState>,
    revoked: Cache<Uuid, i32>,
}

impl Tokens {
    /// For the key and algorithm of the settings.
    #[must_use]
    pub fn new(settings: &Settings, key: &Secret) -> Self {
        let algorithm = match settings.auth_algorithm {
            TokenAlgorithm::Hs256 => Algorithm::HS256,
            TokenAlgorithm::Hs384 => Algorithm::HS384,
            TokenAlgorithm::Hs512 => Algorithm::HS512,
        };
        // one algorithm only: a token that names another, or none, is not valid
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        Self {
            encoding: EncodingKey::from_secret(key.reveal().as_bytes()),
            decoding: DecodingKey::from_secret(key.reveal().as_bytes()),
            header: Header::new(algorithm),
            validation,
            life_seconds: settings.auth_access_token_expire_minutes * 60,
            states: Cache::builder()
                .max_capacity(CACHED_CLIENTS)
                .time_to_live(CACHED_FOR)
                .build(),
            revoked: Cache::builder()
                .max_capacity(CACHED_CLIENTS)
                .time_to_live(REVOKED_FOR)
                .build(),
        }
    }

    /// Issue a token to a client that knows its secret, for all its scopes or those requested.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn issue(
        &self,
        pool: &Database,
        client_id: Uuid,
        client_secret: String,
        requested: Option<&str>,
    ) -> Result<AccessToken, Denied> {
        let client = db::clients::credentials(pool, client_id)
            .await
            .map_err(Denied::Failed)?;
        let stored = client.as_ref().map(|client| client.secret_hash.clone());
        let verified = secrets::verify(client_secret, stored).await;
        let client = client
            .filter(|client| verified && client.is_active)
            .ok_or(Denied::InvalidClient)?;
        let scope = match requested.map(str::trim).filter(|scope| !scope.is_empty()) {
            Some(requested) if scopes::cover(&client.scopes, requested) => requested.to_owned(),
            Some(_) => return Err(Denied::InvalidScope),
            None => client.scopes,
        };
        let now = chrono::Utc::now().timestamp();
        let claims = Claims {
            sub: client_id,
            scope: scope.clone(),
            ver: client.token_version,
            iat: now,
            exp: now + self.life_seconds,
            iss: "fastpubsub".to_owned(),
            jti: Uuid::now_v7().to_string(),
            client_id: client_id.to_string(),
        };
        let access_token = jsonwebtoken::encode(&self.header, &claims, &self.encoding)
            .map_err(|error| Denied::Failed(Error::Internal(Arc::new(error))))?;
        Ok(AccessToken {
            access_token,
            token_type: "Bearer",
            expires_in: self.life_seconds,
            scope,
        })
    }

    /// Who a token was issued to, if it is still good.
    ///
    /// # Errors
    /// 401 when it is not, 503 when that cannot be found out.
    pub async fn verify(&self, pool: &Database, token: &str) -> Result<Identity, Error> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|_| Error::Unauthorized("Invalid jwt token"))?
            .claims;
        let mut state = self.state(pool, claims.sub).await?;
        if matches!(state, ClientState::Known { version, .. } if version < claims.ver) {
            // the token is newer than what is cached
            self.states.invalidate(&claims.sub).await;
            state = self.state(pool, claims.sub).await?;
        }
        let ClientState::Known { version, is_active } = state else {
            return Err(Error::Unauthorized("Client not found"));
        };
        if !is_active {
            return Err(Error::Unauthorized("Client disabled"));
        }
        let at_least = self.revoked.get(&claims.sub).await.unwrap_or(version);
        if claims.ver != version.max(at_least) {
            return Err(Error::Unauthorized("Token revoked"));
        }
        Ok(Identity {
            client_id: claims.sub,
            scopes: claims.scope,
        })
    }

    /// A client was updated to this version, or deleted: its older tokens end now.
    pub async fn revoke(&self, client_id: Uuid, version: Option<i32>) {
        self.revoked
            .insert(client_id, version.unwrap_or(i32::MAX))
            .await;
        self.states.invalidate(&client_id).await;
    }

    async fn state(&self, pool: &Database, client_id: Uuid) -> Result<ClientState, Error> {
        let load = async {
            let client = db::clients::credentials(pool, client_id).await?;
            Ok::<_, Error>(
                client.map_or(ClientState::Gone, |client| ClientState::Known {
                    version: client.token_version,
                    is_active: client.is_active,
                }),
            )
        };
        self.states
            .try_get_with(client_id, load)
            .await
            .map_err(|error: Arc<Error>| Error::clone(&error))
    }
}
