//! Sees what others commit. One per server, while somebody waits: a connection of its own sleeps in
//! `wait_for_commit`, and after each commit one statement, `ready_subscriptions`, asks for all
//! subscriptions at once. Without that connection it asks each second.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Shared;
use crate::db::database::Database;
use crate::db::subscriptions;
use crate::db::waiting::{self, Commits};

/// Between two looks, at least.
const PAUSE: Duration = Duration::from_millis(20);
/// A look that takes so long is followed by a pause of so many times that: at most a tenth of the time.
const PAUSE_FACTOR: u32 = 9;
/// Between looks that no commit asks for, and between attempts to connect.
const RETRY: Duration = Duration::from_secs(1);
/// Between looks for what is to be kept, or it would expire.
const KEEP: Duration = Duration::from_secs(1);
/// When nothing at all is due.
const IDLE: Duration = Duration::from_secs(5);

/// Watch until nobody waits any more, or nobody shall.
pub(super) async fn run(shared: Arc<Shared>) {
    // one commit that has not been looked at yet is as good as many
    let (committed, commits) = mpsc::channel(1);
    tokio::select! {
        () = look_after_commits(&shared, commits) => {}
        () = wait_for_commits(&shared.database, committed) => {}
        () = keep(&shared) => {}
        () = shared.closing.cancelled() => {}
    }
}

async fn look_after_commits(shared: &Shared, mut commits: mpsc::Receiver<()>) {
    loop {
        let next_at = shared.places().next_at();
        let idle_until = Instant::now() + IDLE;
        let asked = tokio::select! {
            _ = commits.recv() => true,
            () = shared.arrived.notified() => true,
            () = tokio::time::sleep_until(next_at.map_or(idle_until, |at| at.min(idle_until))) => false,
        };
        let asked = asked || next_at.is_some_and(|at| at <= Instant::now());
        if shared.places().ends_watch() {
            return;
        }
        if !asked {
            continue;
        }
        let watched = shared.places().watched();
        let started = Instant::now();
        match waiting::look(&shared.database, watched).await {
            Ok(looks) => shared.places().update(looks),
            Err(error) => {
                tracing::debug!(error = %error, "looking for waiting consumers failed");
                tokio::time::sleep(RETRY).await;
                shared.arrived.notify_one();
            }
        }
        tokio::time::sleep(PAUSE.max(started.elapsed() * PAUSE_FACTOR)).await;
    }
}

/// Keep what expires and is waited for or attended, for ever.
async fn keep(shared: &Shared) {
    let mut due = BTreeSet::new();
    loop {
        tokio::time::sleep(KEEP).await;
        // those that could not be kept are due again
        due.extend(shared.places().take_due());
        if due.is_empty() {
            continue;
        }
        let ids: Vec<String> = due.iter().cloned().collect();
        match subscriptions::keep(&shared.database, &ids).await {
            Ok(kept) => {
                due.clear();
                let mut places = shared.places();
                for id in ids.iter().filter(|id| !kept.contains(id)) {
                    // who waits for it is to know that it is gone
                    places.ring(id, usize::MAX);
                }
            }
            Err(error) => tracing::warn!(error = %error, "keeping subscriptions failed"),
        }
    }
}

/// Tell of commits, for ever.
async fn wait_for_commits(database: &Database, committed: mpsc::Sender<()>) {
    let mut warned = false;
    loop {
        let Err(error) = wait_on_a_connection(database, &committed, &mut warned).await;
        if !std::mem::replace(&mut warned, true) {
            tracing::warn!(error = %error, "cannot wait for commits; asking each second instead");
        }
        tokio::time::sleep(RETRY).await;
        let _ended = committed.send(()).await;
    }
}

async fn wait_on_a_connection(
    database: &Database,
    committed: &mpsc::Sender<()>,
    warned: &mut bool,
) -> Result<std::convert::Infallible, sqlx::Error> {
    let mut commits = Commits::connect(database).await?;
    loop {
        let is_new = commits.next().await?;
        if std::mem::take(warned) {
            tracing::info!("waiting for commits again");
        }
        if is_new {
            // waits while the last one has not been looked at: never faster than the looks
            let _ended = committed.send(()).await;
        }
    }
}
