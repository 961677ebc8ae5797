//! The endpoints there are, looked up now and then, and a worker for each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Shared;
use super::worker::Worker;
use crate::db::push::{self, PushEndpoint};
use crate::telemetry::push::set_paused;

/// Between two looks; what this server changes itself is seen at once.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// As long as there are none.
const LOOK_FOR_ANY_EVERY: Duration = Duration::from_secs(15);

/// An endpoint, and when it was asked for.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) endpoint: Arc<PushEndpoint>,
    pub(super) at: Instant,
}

/// The workers, by subscription; one that is told nothing any more ends.
#[derive(Default)]
struct Workers {
    running: HashMap<String, watch::Sender<Listed>>,
    tasks: TaskTracker,
}

/// Push until `shutdown`; what is on its way then has this long to end.
pub(super) async fn push(
    shared: Arc<Shared>,
    changed: &Notify,
    shutdown: CancellationToken,
    drain: Duration,
) {
    let give_up = CancellationToken::new();
    let mut workers = Workers::default();
    let mut is_away = false;
    while !shutdown.is_cancelled() {
        let at = Instant::now();
        match push::list(&shared.database, None).await {
            Ok(endpoints) => {
                is_away = false;
                let paused = endpoints.iter().filter(|one| one.pause.is_some());
                set_paused(paused.count());
                let start = |listed| {
                    let worker = Worker::new(Arc::clone(&shared), listed);
                    worker.run(shutdown.child_token(), give_up.clone())
                };
                workers.update(endpoints, at, start);
            }
            Err(error) => {
                if !std::mem::replace(&mut is_away, true) {
                    tracing::warn!(%error, "looking for push endpoints failed");
                }
            }
        }
        let pause = if workers.running.is_empty() {
            LOOK_FOR_ANY_EVERY
        } else {
            LOOK_EVERY
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = changed.notified() => {}
            () = shutdown.cancelled() => {}
        }
    }
    workers.running.clear();
    workers.tasks.close();
    if timeout(drain, workers.tasks.wait()).await.is_err() {
        give_up.cancel();
        workers.tasks.wait().await;
    }
}

impl Workers {
    /// Let there be a worker for each of these, which knows how it is now.
    fn update<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        endpoints: Vec<PushEndpoint>,
        at: Instant,
        start: impl Fn(watch::Receiver<Listed>) -> F,
    ) {
        let mut running = HashMap::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let id = endpoint.subscription_id.clone();
            let endpoint = Arc::new(endpoint);
            let listed = Listed { endpoint, at };
            let sender = match self.running.remove(&id) {
                Some(sender) if !sender.is_closed() => {
                    sender.send_replace(listed);
                    sender
                }
                // none, or one that broke down
                _ => {
                    let (sender, receiver) = watch::channel(listed);
                    self.tasks.spawn(start(receiver));
                    sender
                }
            };
            running.insert(id, sender);
        }
        self.running = running;
    }
}
