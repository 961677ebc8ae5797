//! Push: messages of a subscription are sent to its endpoint. Every server pushes for every endpoint: leases share
//! the work as among any consumers, and a server that crashes costs one ack deadline.
//!
//! [`endpoints`] looks which endpoints there are, and keeps a [`worker`] for each, which claims and knows by
//! [`health`] whether the endpoint is worth trying; what follows from the [`results`] goes on beside it. A [`lane`]
//! sends one message after the other, a [`request`] is one of them, with its [`signature`], over a [`connection`] to
//! an address that the [`guard`] lets pass.

mod connection;
mod endpoints;
mod failure;
mod guard;
mod health;
mod lane;
mod names;
mod request;
mod results;
mod signature;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::db::database::Database;
use crate::db::push::PushEndpoint;
use crate::descriptors;
use crate::engine::Engine;
use connection::Dialer;
use guard::Guard;
pub use lane::Show;
use names::Resolver;

/// What workers share.
struct Shared {
    database: Database,
    engine: Engine,
    dialer: Dialer,
    show: Show,
    /// For pushes at a time.
    places: Arc<Semaphore>,
}

/// Sends messages to endpoints. Cheap to clone.
#[derive(Clone)]
pub struct Push {
    dialer: Dialer,
    changed: Arc<Notify>,
}

/// How a single push went.
#[derive(Clone, Debug)]
pub struct Tried {
    /// What the receiver answered, if it did.
    pub status: Option<u16>,
    /// Why it has not taken the message; none if it has.
    pub error: Option<String>,
    /// How long that took.
    pub took: Duration,
}

impl Push {
    /// To where the settings allow.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let networks = settings.push.networks(settings.database_url.is_none());
        Self {
            dialer: Dialer::new(Guard::new(networks, Resolver::System)),
            changed: Arc::default(),
        }
    }

    /// An endpoint was set, changed or deleted.
    pub fn changed(&self) {
        self.changed.notify_one();
    }

    /// Push until `shutdown`; what is on its way then has this long to end.
    pub async fn run(
        &self,
        database: Database,
        engine: Engine,
        show: Show,
        shutdown: CancellationToken,
        drain: Duration,
    ) {
        let limit = descriptors::raise_limit().unwrap_or(usize::MAX);
        let places = descriptors::for_pushes(limit);
        let shared = Shared {
            database,
            engine,
            dialer: self.dialer.clone(),
            show,
            places: Arc::new(Semaphore::new(places)),
        };
        endpoints::push(Arc::new(shared), &self.changed, shutdown, drain).await;
    }

    /// Send something to an endpoint now, whatever is known of it.
    pub async fn try_out(&self, endpoint: &PushEndpoint, id: &str, body: Vec<u8>) -> Tried {
        let target = worker::target(endpoint);
        let sent = request::send(&self.dialer, &target, id, Bytes::from(body)).await;
        let (status, error) = match sent.answer {
            Ok(answer) if answer.is_success() => (Some(answer.status), None),
            Ok(answer) => (Some(answer.status), Some(format!("HTTP {}", answer.status))),
            Err(failure) => (None, Some(failure.to_string())),
        };
        Tried {
            status,
            error,
            took: sent.took,
        }
    }
}
