//! What follows from how deliveries ended: for their messages, which are settled, and for the endpoint, which all
//! servers are told.

use tokio::time::{Instant, sleep};

use super::Shared;
use super::health::{Health, Phase};
use super::lane::{Ended, Outcome};
use super::worker::PAUSE;
use crate::db::messages::Handle;
use crate::db::push::{PushEndpoint, PushResult, note_result, wait_after};
use crate::db::settlements::{Action, Settlement};
use crate::error::Error;

/// Most characters of a reason.
const REASON: usize = 1024;

/// Tell other servers what results say of the endpoint, where they say anything new; then what goes back because
/// of it does. What is known of the endpoint afterwards.
pub(super) async fn note(
    shared: &Shared,
    endpoint: &PushEndpoint,
    mut health: Health,
    results: Vec<Ended>,
) -> Health {
    let mut unsent = Vec::new();
    for ended in &results {
        // another endpoint has nothing to do with it
        if ended.origin.version == endpoint.version {
            note_one(shared, &endpoint.subscription_id, &mut health, ended).await;
        }
        if ended.goes_back_noted() {
            unsent.push(ended.handle);
        }
    }
    give_back(shared, &endpoint.subscription_id, &unsent).await;
    health
}

async fn note_one(shared: &Shared, id: &str, health: &mut Health, ended: &Ended) {
    let (is_success, error, wait) = match &ended.outcome {
        Outcome::Delivered { .. } if health.has_failed() => (true, None, None),
        Outcome::Delivered { .. } | Outcome::Unsent | Outcome::Busy => return,
        Outcome::Failed {
            reason,
            retry_after,
            ..
        } => (false, Some(reason.as_str()), *retry_after),
        Outcome::Gone { reason } => (false, Some(reason.as_str()), None),
    };
    let is_gone = matches!(ended.outcome, Outcome::Gone { .. });
    // of a push from before the pause, which changes nothing
    if !is_success && !is_gone && !ended.origin.is_probe && health.is_paused() {
        return;
    }
    let result = PushResult {
        version: ended.origin.version,
        is_success,
        error,
        is_gone,
        wait,
    };
    match note_result(&shared.database, id, result).await {
        Ok(pause) => {
            let was_paused = health.is_paused();
            health.noted(is_success, pause);
            tell(id, health, was_paused, error.unwrap_or_default());
        }
        Err(error) => {
            tracing::debug!(subscription.id = %id, %error, "the result of a push was not noted");
        }
    }
}

fn tell(id: &str, health: &Health, was_paused: bool, reason: &str) {
    match health.phase() {
        Phase::Stopped => tracing::warn!(
            subscription.id = id,
            reason,
            "nothing is pushed to the endpoint of {id} any more: it is gone ({reason})"
        ),
        Phase::Paused(left) => tracing::warn!(
            subscription.id = id,
            reason,
            pause_seconds = left.as_secs_f64().ceil(),
            "the endpoint of {id} fails ({reason}): it is left alone for a while"
        ),
        Phase::Open if was_paused => {
            tracing::info!(subscription.id = id, "the endpoint of {id} works again");
        }
        Phase::Open | Phase::Due => {}
    }
}

async fn give_back(shared: &Shared, subscription_id: &str, handles: &[Handle]) {
    if !handles.is_empty() {
        shared.engine.give_back(subscription_id, handles).await;
    }
}

/// Settle deliveries; those that were not sent go back.
pub(super) async fn settle(shared: &Shared, subscription_id: &str, done: Vec<Ended>) {
    let mut until = Instant::now();
    let mut settlements = Vec::new();
    let mut unsent = Vec::new();
    for ended in done {
        if ended.goes_back_noted() {
            continue;
        }
        until = until.max(ended.origin.lease_ends);
        match action(shared, subscription_id, &ended).await {
            Some(action) => settlements.push(Settlement {
                message_id: ended.handle.message_id,
                lease: ended.handle.lease.unwrap_or_default(),
                action,
            }),
            None => unsent.push(ended.handle),
        }
    }
    if !settlements.is_empty() {
        settle_all(shared, subscription_id, settlements, until).await;
    }
    give_back(shared, subscription_id, &unsent).await;
}

async fn settle_all(
    shared: &Shared,
    subscription_id: &str,
    settlements: Vec<Settlement>,
    until: Instant,
) {
    let all = try_settle(shared, subscription_id, settlements.clone(), until).await;
    match all {
        Ok(()) => {}
        Err(error) if settlements.len() == 1 || error.status() >= 503 => {
            give_up(subscription_id, &error);
        }
        // that one cannot be settled so is no reason to send the others again
        Err(_) => {
            for one in settlements {
                if let Err(error) = try_settle(shared, subscription_id, vec![one], until).await {
                    give_up(subscription_id, &error);
                }
            }
        }
    }
}

fn give_up(subscription_id: &str, error: &Error) {
    tracing::warn!(
        subscription.id = %subscription_id,
        %error,
        "what was pushed could not be settled and may be pushed again"
    );
}

/// How a delivery is settled; not at all if it counts as not sent.
async fn action(shared: &Shared, subscription_id: &str, ended: &Ended) -> Option<Action> {
    match &ended.outcome {
        Outcome::Delivered { note } => Some(Action::Noted { note: note.clone() }),
        Outcome::Failed {
            reason,
            retry_after,
            ..
        } => {
            let mut seconds = retry_after.map(|wait| wait.as_secs_f64());
            if let Some(wait) = *retry_after {
                let database = &shared.database;
                let waits = wait_after(database, subscription_id, ended.attempts, wait).await;
                seconds = waits.unwrap_or(seconds);
            }
            let reason = Some(reason.chars().take(REASON).collect());
            Some(Action::Nack { seconds, reason })
        }
        Outcome::Gone { .. } | Outcome::Unsent | Outcome::Busy => None,
    }
}

/// Until the database takes it, or the leases have run out: then the messages are pushed again.
async fn try_settle(
    shared: &Shared,
    subscription_id: &str,
    settlements: Vec<Settlement>,
    until: Instant,
) -> Result<(), Error> {
    loop {
        let settled = shared
            .engine
            .settle(subscription_id.to_owned(), settlements.clone());
        match settled.await {
            // deleted meanwhile
            Ok(_) | Err(Error::Refused { status: 404, .. }) => return Ok(()),
            Err(error) if error.status() >= 503 && Instant::now() < until => sleep(PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}
