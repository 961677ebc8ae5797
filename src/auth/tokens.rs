//! Access tokens (RFC 7519, signed with HMAC): issuing them, and verifying them without asking the
//! database on every request.
//!
//! A token carries its client's `token_version`; an update or delete of the client makes it stale.
//! Versions are cached for four seconds, so other servers notice within five; this server is told by
//! [`Tokens::revoke`] and notices at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::db::database::Database;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use moka::future::Cache;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{scopes, secrets};
use crate::config::{Secret, Settings, TokenAlgorithm};
use crate::db;
use crate::db::clients::Credentials;
use crate::error::Error;

const CACHED_CLIENTS: u64 = 100_000;
const CACHED_FOR: Duration = Duration::from_secs(4);
/// Longer than an answer that was under way can stay cached.
const REVOKED_FOR: Duration = Duration::from_secs(60);

/// A refused login is answered after a multiple of this, as long as some client has a slow hash.
const REFUSED_AFTER: Duration = Duration::from_secs(1);
const ISSUER: &str = "fastpubsub";

/// What a token says. The Python original's have the first five.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: Uuid,
    scope: String,
    ver: i32,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(default)]
    jti: String,
    #[serde(default)]
    client_id: String,
    /// When the client was created, in microseconds: another one may get its id later.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_created: Option<i64>,
    /// Ours have none: a token for somebody else is not for us.
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<serde_json::Value>,
}

/// A client as the database says, as far as its tokens depend on it.
#[derive(Clone, Copy, Debug)]
enum ClientState {
    Gone,
    Known {
        version: i32,
        is_active: bool,
        created: i64,
    },
}

/// The client that a valid token was issued to, or that has an API key, and what it may do.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The client.
    pub client_id: Uuid,
    /// What the token allows, or the client's where it is a key.
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
    /// A requested scope is none, or not granted to the client.
    InvalidScope,
    /// Too many logins of clients with slow hashes are waiting.
    TooMany,
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
        validation.validate_nbf = true;
        // a token ends with the second that it names
        validation.reject_tokens_expiring_in_less_than = 1;
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
        let client = self.login(pool, client_id, client_secret).await?;
        let scope = match requested.map(str::trim).filter(|scope| !scope.is_empty()) {
            Some(requested) => {
                let is_covered = scopes::validate(requested).is_ok()
                    && scopes::beyond(&client.scopes, requested).is_none();
                if !is_covered {
                    return Err(Denied::InvalidScope);
                }
                requested.to_owned()
            }
            None => client.scopes,
        };
        let now = chrono::Utc::now().timestamp();
        let claims = Claims {
            sub: client_id,
            scope: scope.clone(),
            ver: client.token_version,
            iat: now,
            exp: now + self.life_seconds,
            iss: Some(ISSUER.to_owned()),
            jti: Uuid::now_v7().to_string(),
            client_id: client_id.to_string(),
            client_created: Some(client.created_at.0.timestamp_micros()),
            aud: None,
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

    /// The client, if the secret is its own. An unknown client, a wrong secret and an inactive client
    /// take equally long.
    async fn login(
        &self,
        pool: &Database,
        client_id: Uuid,
        secret: String,
    ) -> Result<Credentials, Denied> {
        let started = Instant::now();
        let client = db::clients::credentials(pool, client_id)
            .await
            .map_err(Denied::Failed)?;
        if let Some(client) = client {
            let stored = client.secret_hash.clone();
            let verified = secrets::verify(client_id, secret.clone(), stored)
                .await
                .map_err(|_| Denied::TooMany)?;
            if verified && client.is_active {
                if !secrets::is_fast(&client.secret_hash) {
                    renew_hash(pool, client_id, &client.secret_hash, &secret).await;
                }
                return Ok(client);
            }
        }
        // with slow hashes about, the time would tell who has one
        if db::clients::has_slow_hashes(pool)
            .await
            .map_err(Denied::Failed)?
        {
            let mut answer_at = started + REFUSED_AFTER;
            while answer_at < Instant::now() {
                answer_at += REFUSED_AFTER;
            }
            tokio::time::sleep_until(answer_at.into()).await;
        }
        Err(Denied::InvalidClient)
    }

    /// Who a token was issued to, if it is still good.
    ///
    /// # Errors
    /// 401 when it is not, 503 when that cannot be found out.
    pub async fn verify(&self, pool: &Database, token: &str) -> Result<Identity, Error> {
        let claims = self
            .decode(token)
            .ok_or(Error::InvalidToken("Invalid jwt token"))?;
        let mut state = self.state(pool, claims.sub).await?;
        if matches!(state, ClientState::Known { version, .. } if version < claims.ver) {
            // the token is newer than what is cached
            self.states.invalidate(&claims.sub).await;
            state = self.state(pool, claims.sub).await?;
        }
        let ClientState::Known {
            version,
            is_active,
            created,
        } = state
        else {
            return Err(Error::InvalidToken("Client not found"));
        };
        if !is_active {
            return Err(Error::InvalidToken("Client disabled"));
        }
        let at_least = self.revoked.get(&claims.sub).await.unwrap_or(version);
        let is_another = claims.client_created.is_some_and(|at| at != created);
        if is_another || claims.ver != version.max(at_least) {
            return Err(Error::InvalidToken("Token revoked"));
        }
        Ok(Identity {
            client_id: claims.sub,
            scopes: claims.scope,
        })
    }

    /// What a token says, if we signed it for ourselves and it is in its time.
    fn decode(&self, token: &str) -> Option<Claims> {
        let decoded =
            jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation).ok()?;
        // what must be understood (RFC 7515, section 4.1.11) is not
        if decoded.header.crit.is_some() {
            return None;
        }
        let claims = decoded.claims;
        let is_ours = claims.iss.as_deref().is_none_or(|iss| iss == ISSUER) && claims.aud.is_none();
        is_ours.then_some(claims)
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
                    created: client.created_at.0.timestamp_micros(),
                }),
            )
        };
        self.states
            .try_get_with(client_id, load)
            .await
            .map_err(|error: Arc<Error>| Error::clone(&error))
    }
}

/// Store a fast hash instead of the Python original's, unless it is another one by now.
async fn renew_hash(pool: &Database, client_id: Uuid, stored: &str, secret: &str) {
    let renewed = db::clients::renew_hash(pool, client_id, stored, &secrets::hash(secret)).await;
    if let Err(error) = renewed {
        // the login is good all the same, and the next one tries again
        tracing::warn!(client.id = %client_id, %error, "the hash of a client's secret stays slow");
    }
}
