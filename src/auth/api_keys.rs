//! API keys: making them, and finding whose they are without asking the database on every request.
//!
//! Holders are cached for four seconds, so other servers notice within five when a client is changed or
//! its key replaced; this server is told by [`ApiKeys::recheck`] and notices at once.
//!
//! Anybody can send keys that nobody has, each of them another one, and a cache does not help against
//! those. So what was not seen to be good lately is looked up together, by one call at a time, and
//! calls that find nothing are followed by a pause: garbage costs the database 50 calls a second at
//! most, and who sends a key that is good neither waits behind it nor is refused.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::future::Cache;
use tokio::sync::{Mutex as Turn, oneshot};
use uuid::Uuid;

use super::secrets;
use super::tokens::Identity;
use crate::db;
use crate::db::clients::KeyHolder;
use crate::db::database::Database;
use crate::error::Error;

/// What each key begins with, so that people and scanners know one when they see it.
const PREFIX: &str = "fps_";
const BYTES: usize = 32;
/// Of the bytes in base64url, without padding.
const ENCODED_LENGTH: usize = 43;

const CACHED_KEYS: u64 = 100_000;
const CACHED_FOR: Duration = Duration::from_secs(4);
/// Longer than an answer that was under way can stay cached.
const CHANGED_FOR: Duration = Duration::from_secs(60);
/// How long a key that was good is one to look up at once.
const PROVEN_FOR: Duration = Duration::from_secs(24 * 3600);

/// Keys that one call looks up.
const LOOKUP: usize = 200;
/// Keys that wait to be looked up.
const WAITING: usize = 2000;
/// After a call for keys that nobody has.
const PAUSE: Duration = Duration::from_millis(20);

const INVALID: Error = Error::InvalidToken("Invalid API key");
const TOO_MANY: Error = Error::TooMany("too many unknown API keys at a time, try again");

/// A new key.
#[must_use]
pub fn generate() -> String {
    let bytes: [u8; BYTES] = rand::random();
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether text has the form of a key. What has not belongs to nobody.
#[must_use]
pub fn is_key(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|encoded| {
        encoded.len() == ENCODED_LENGTH
            && encoded
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    })
}

/// Whether text is meant as a key: a token begins otherwise.
#[must_use]
pub fn is_meant_as_key(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// Whose a key is, as the database said then.
#[derive(Clone)]
struct Found {
    /// Before it was asked.
    asked_at: Instant,
    holder: Option<KeyHolder>,
}

/// A key that waits to be looked up, and who waits for it.
type Asked = (String, oneshot::Sender<Result<Found, Error>>);

/// Finds out who has a key.
pub struct ApiKeys {
    found: Cache<String, Found>,
    /// Keys that were good lately.
    proven: Cache<String, ()>,
    /// Clients that were changed on this server, and when.
    changed: Cache<Uuid, Instant>,
    waiting: Mutex<Vec<Asked>>,
    /// The turn to look up what waits, with the time at which it may be done.
    turn: Turn<Instant>,
}

impl Default for ApiKeys {
    fn default() -> Self {
        Self {
            found: Cache::builder()
                .max_capacity(CACHED_KEYS)
                .time_to_live(CACHED_FOR)
                .build(),
            proven: Cache::builder()
                .max_capacity(CACHED_KEYS)
                .time_to_idle(PROVEN_FOR)
                .build(),
            changed: Cache::builder()
                .max_capacity(CACHED_KEYS)
                .time_to_live(CHANGED_FOR)
                .build(),
            waiting: Mutex::new(Vec::new()),
            turn: Turn::new(Instant::now()),
        }
    }
}

impl ApiKeys {
    /// Who has a key, and what he may do.
    ///
    /// # Errors
    /// 401 when nobody has it or his client is off, 429 when too many unknown keys are waiting, 503 when
    /// it cannot be found out.
    pub async fn identify(&self, pool: &Database, key: &str) -> Result<Identity, Error> {
        if !is_key(key) {
            return Err(INVALID);
        }
        let hash = secrets::hash(key);
        let holder = self.holder(pool, hash).await?.ok_or(INVALID)?;
        if !holder.is_active {
            return Err(Error::InvalidToken("Client disabled"));
        }
        Ok(Identity {
            client_id: holder.client_id,
            scopes: holder.scopes,
        })
    }

    /// A client was changed or deleted, or its key replaced: what is known of its keys ends now.
    pub async fn recheck(&self, client_id: Uuid) {
        self.changed.insert(client_id, Instant::now()).await;
    }

    async fn holder(&self, pool: &Database, hash: String) -> Result<Option<KeyHolder>, Error> {
        loop {
            let found = self
                .found
                .try_get_with_by_ref(&hash, self.find(pool, &hash))
                .await
                .map_err(|error: Arc<Error>| Error::clone(&error))?;
            let Some(holder) = found.holder else {
                return Ok(None);
            };
            // what was asked before the change, though perhaps answered after it
            match self.changed.get(&holder.client_id).await {
                Some(changed_at) if found.asked_at <= changed_at => {
                    self.found.invalidate(&hash).await;
                }
                _ => return Ok(Some(holder)),
            }
        }
    }

    async fn find(&self, pool: &Database, hash: &str) -> Result<Found, Error> {
        let found = if self.proven.get(hash).await.is_some() {
            let asked_at = Instant::now();
            let holders = db::clients::key_holders(pool, &[hash.to_owned()]).await?;
            Found {
                asked_at,
                holder: holders.into_iter().next(),
            }
        } else {
            self.find_with_others(pool, hash).await?
        };
        if found.holder.is_some() {
            self.proven.insert(hash.to_owned(), ()).await;
        } else {
            self.proven.invalidate(hash).await;
        }
        Ok(found)
    }

    /// Wait for a turn, and look up what waits then; or until somebody else has.
    async fn find_with_others(&self, pool: &Database, hash: &str) -> Result<Found, Error> {
        let mut mine = self.ask(hash)?;
        loop {
            let mut next_at = tokio::select! {
                biased;
                found = &mut mine => match found {
                    Ok(found) => return found,
                    // he who looked went away
                    Err(_) => {
                        mine = self.ask(hash)?;
                        continue;
                    }
                },
                next_at = self.turn.lock() => next_at,
            };
            tokio::time::sleep_until((*next_at).into()).await;
            if self.look_up(pool).await {
                *next_at = Instant::now() + PAUSE;
            }
        }
    }

    fn ask(&self, hash: &str) -> Result<oneshot::Receiver<Result<Found, Error>>, Error> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING {
            waiting.retain(|(_, asker)| !asker.is_closed());
        }
        if waiting.len() >= WAITING {
            return Err(TOO_MANY);
        }
        let (asker, mine) = oneshot::channel();
        waiting.push((hash.to_owned(), asker));
        Ok(mine)
    }

    /// Look up those that wait longest. Whether some of them belong to nobody.
    async fn look_up(&self, pool: &Database) -> bool {
        let asked: Vec<Asked> = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.retain(|(_, asker)| !asker.is_closed());
            let count = waiting.len().min(LOOKUP);
            waiting.drain(..count).collect()
        };
        if asked.is_empty() {
            return false;
        }
        let asked_at = Instant::now();
        let hashes: Vec<String> = asked.iter().map(|(hash, _)| hash.clone()).collect();
        let holders = db::clients::key_holders(pool, &hashes).await;
        let mut missed = false;
        for (hash, asker) in asked {
            let found = holders.as_ref().map_err(Error::clone).map(|holders| {
                let holder = holders.iter().find(|holder| holder.api_key_hash == hash);
                missed |= holder.is_none();
                Found {
                    asked_at,
                    holder: holder.cloned(),
                }
            });
            // he may have gone away
            let _gone = asker.send(found);
        }
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_form_of_one_and_tokens_have_not() {
        let key = generate();

        assert!(is_key(&key), "{key}");
        assert_ne!(key, generate());
        for other in [
            "",
            PREFIX,
            "eyJhbGciOiJIUzI1NiJ9.e30.x",
            &key[1..],
            &format!("{key}x"),
            &key[..key.len() - 1],
            &format!("{}ä", &key[..key.len() - 2]),
            &key.replacen("fps_", "FPS_", 1),
        ] {
            assert!(!is_key(other), "{other}");
        }
    }
}
