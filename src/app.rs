//! What handlers work with: settings, connections, tokens, metrics.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::auth::api_keys::ApiKeys;
use crate::auth::tokens::{Identity, Tokens};
use crate::budget::Budget;
use crate::config::Settings;
use crate::db::database::Database;
use crate::engine::Engine;
use crate::error::Error;
use crate::push::Push;
use crate::telemetry::metrics::Metrics;

/// The state of the service; cheap to clone, which every layer of a router does for every request.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What the state is made of.
pub struct Parts {
    /// The settings.
    pub settings: Settings,
    /// The database.
    pub database: Database,
    /// How much memory requests may take.
    pub budget: Budget,
    /// Publishes, claims, acks.
    pub engine: Engine,
    /// The same, for streams.
    pub streams: Engine,
    /// Issues and verifies tokens, where there is a key.
    pub tokens: Option<Tokens>,
    /// Finds out who has an API key.
    pub api_keys: ApiKeys,
    /// Sends messages to endpoints.
    pub push: Push,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What a door has once, however many addresses it is at.
    of_doors: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl App {
    /// Over a database, as the settings say.
    #[must_use]
    pub fn new(settings: Settings, database: Database, metrics: Metrics) -> Self {
        let tokens = settings
            .auth_secret_key
            .as_ref()
            .map(|key| Tokens::new(&settings, key));
        let budget = Budget::new(&settings);
        let push = Push::new(&settings);
        let engine = Engine::new(&database, &settings, budget.clone());
        Self(Arc::new(Parts {
            settings,
            database,
            budget,
            streams: engine.for_streams(),
            engine,
            tokens,
            api_keys: ApiKeys::default(),
            push,
            metrics,
            of_doors: Mutex::default(),
        }))
    }

    /// What a door has once in this process: the first who asks makes it.
    #[must_use]
    pub fn once<T: Any + Send + Sync>(&self, make: impl FnOnce(&Self) -> T) -> Arc<T> {
        let mut all = self.of_doors.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&TypeId::of::<T>()).cloned();
        if let Some(known) = known.and_then(|known| known.downcast().ok()) {
            return known;
        }
        let made = Arc::new(make(self));
        all.insert(TypeId::of::<T>(), Arc::<T>::clone(&made));
        made
    }

    /// A client was updated to this version, or deleted: its older tokens end now, and its API keys are
    /// looked up again.
    pub async fn revoke_tokens(&self, client_id: Uuid, version: Option<i32>) {
        if let Some(tokens) = &self.tokens {
            tokens.revoke(client_id, version).await;
        }
        self.recheck_api_keys(client_id).await;
    }

    /// The API keys of a client are others now.
    pub async fn recheck_api_keys(&self, client_id: Uuid) {
        self.api_keys.recheck(client_id).await;
        self.engine.recheck_waits();
    }

    /// Who has an API key, and what he may do. For any door: whether authentication is on is its affair.
    ///
    /// # Errors
    /// 401 when nobody has it or his client is off, 429 when too many unknown keys are waiting, 503 when
    /// it cannot be found out.
    pub async fn identify_api_key(&self, key: &str) -> Result<Identity, Error> {
        self.api_keys.identify(&self.database, key).await
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
