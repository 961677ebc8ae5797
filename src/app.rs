//! What handlers work with: settings, connections, tokens, metrics.

use std::sync::Arc;

use crate::db::database::Database;
use uuid::Uuid;

use crate::auth::tokens::Tokens;
use crate::budget::Budget;
use crate::config::Settings;
use crate::db::merged::Merged;
use crate::telemetry::metrics::Metrics;

/// The state of the service; cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The settings.
    pub settings: Arc<Settings>,
    /// Connections to the database.
    pub pool: Database,
    /// How much memory requests may take.
    pub budget: Budget,
    /// Publishes, claims and acks.
    pub merged: Merged,
    /// Issues and verifies tokens, where there is a key.
    pub tokens: Option<Arc<Tokens>>,
    /// What `/metrics` shows.
    pub metrics: Metrics,
}

impl App {
    /// For a pool and the settings.
    #[must_use]
    pub fn new(settings: Settings, pool: Database, metrics: Metrics) -> Self {
        let tokens = settings
            .auth_secret_key
            .as_ref()
            .map(|key| Arc::new(Tokens::new(&settings, key)));
        let budget = Budget::new(&settings);
        let ack_deadline = settings.cleanup_stuck_messages_lock_timeout_seconds;
        let most_bytes = settings.api_max_answer_bytes;
        let merged = Merged::new(&pool, ack_deadline, most_bytes, budget.clone());
        Self {
            budget,
            settings: Arc::new(settings),
            pool,
            merged,
            tokens,
            metrics,
        }
    }

    /// A client was updated to this version, or deleted: its older tokens end now.
    pub async fn revoke_tokens(&self, client_id: Uuid, version: Option<i32>) {
        if let Some(tokens) = &self.tokens {
            tokens.revoke(client_id, version).await;
            self.merged.recheck_waits();
        }
    }
}
