//! The background work of the server: expiring spent leases, retention, partitions, the steps of jobs, a
//! look at the database's health. One server at a time does it, so that cron is optional and several servers do
//! not repeat it.

use std::time::Duration;

use crate::db::database::Database;
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::Settings;
use crate::db;
use crate::db::maintenance::{
    cleanup_acked_messages, cleanup_failures, cleanup_fair_lanes, cleanup_handed_out,
    cleanup_idempotency_keys, dead_letter_spent_messages, fold_counters, notice_clock, rotate,
    try_lead,
};
use crate::telemetry::health::Warnings;
use crate::telemetry::jobs::Ended;

const TICK: Duration = Duration::from_secs(5);
/// Retention, partitions and health every so many ticks.
const ROTATE_EVERY: u32 = 12;
/// How far a tick looks back for spent leases; a rotation looks at all of them.
const SPENT_WITHIN_SECONDS: i32 = 60;
/// How soon a job is noticed that goes on after its first step.
const JOBS_EVERY: Duration = Duration::from_secs(2);
/// How many messages a step looks at, unless it then takes too long.
const BATCH: i32 = 10_000;
/// How often jobs are looked for that ended without a step, such as cancelled ones.
const ENDED_EVERY: Duration = Duration::from_secs(15);
/// How far back that looks: longer than any step takes.
const ENDED_WITHIN_SECONDS: i32 = 120;
/// For how long a server must have led before it lets subscriptions expire: after an outage or a deploy, those who
/// were there come back first.
const EXPIRE_AFTER: Duration = Duration::from_secs(60);
/// Longer than a tick with its work: the leader keeps its job as long as it lives.
const LEASE_SECONDS: i32 = 20;

/// Work until `shutdown`, which breaks off what waits for the database: each statement is whole by
/// itself, and what is left undone is due again.
pub async fn run(database: Database, settings: Settings, shutdown: CancellationToken) {
    run_expiring(database, settings, shutdown, EXPIRE_AFTER).await;
}

/// The same, which lets subscriptions expire once it has led for so long.
pub async fn run_expiring(
    database: Database,
    settings: Settings,
    shutdown: CancellationToken,
    expire_after: Duration,
) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work_on(&database, &settings, expire_after) => {}
    }
}

/// Never ends.
async fn work_on(database: &Database, settings: &Settings, expire_after: Duration) {
    let holder = Uuid::now_v7().to_string();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut since_rotation = ROTATE_EVERY;
    let mut warnings = Warnings::default();
    let mut jobs = Jobs {
        batch: BATCH,
        ended: Ended::from_now(),
        next_look: Instant::now(),
    };
    let mut leads_since = None;
    let mut next_step = Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = sleep_until(next_step), if leads_since.is_some() => {
                let pause = jobs.step(database).await;
                next_step = Instant::now() + pause;
                continue;
            }
        }
        let due = since_rotation >= ROTATE_EVERY;
        since_rotation = if due { 1 } else { since_rotation + 1 };
        // a step that fails is tried again at its next time
        let led = match work(database, settings, &holder, due, &mut warnings).await {
            Ok(true)
                if leads_since.is_some_and(|since: Instant| since.elapsed() >= expire_after) =>
            {
                expire(database).await.map(|()| true)
            }
            led => led,
        };
        leads_since = match led {
            Ok(leads) => leads.then(|| leads_since.unwrap_or_else(Instant::now)),
            Err(error) => {
                tracing::warn!(error = %error, "maintenance failed");
                None
            }
        };
    }
}

/// The jobs, as they go on and end.
struct Jobs {
    /// How many messages a step looks at.
    batch: i32,
    ended: Ended,
    next_look: Instant,
}

impl Jobs {
    /// Make a step of a job, tell of those that have ended, and say how long to leave others alone: as
    /// long as it took.
    async fn step(&mut self, database: &Database) -> Duration {
        let started = Instant::now();
        let advanced = db::jobs::advance(database, self.batch).await;
        if matches!(advanced, Ok(true)) || started >= self.next_look {
            self.next_look = started + ENDED_EVERY;
            match db::jobs::ended(database, ENDED_WITHIN_SECONDS).await {
                Ok(jobs) => self.ended.update(&jobs),
                Err(error) => tracing::warn!(error = %error, "looking for ended jobs failed"),
            }
        }
        match advanced {
            Ok(true) => {
                self.batch = (self.batch * 2).min(BATCH);
                started.elapsed()
            }
            Ok(false) => JOBS_EVERY,
            Err(error) => {
                tracing::warn!(error = %error, "the step of a job failed and is tried again");
                // long messages with long filters take their time: fewer of them do not
                self.batch = (self.batch / 10).max(1);
                JOBS_EVERY
            }
        }
    }
}

/// Do what is due, if this server leads; whether it does.
async fn work(
    database: &Database,
    settings: &Settings,
    holder: &str,
    rotation_is_due: bool,
    warnings: &mut Warnings,
) -> Result<bool, sqlx::Error> {
    if !try_lead(database, holder, LEASE_SECONDS).await? {
        // the one that leads tells them
        *warnings = Warnings::default();
        return Ok(false);
    }
    if let Some(seconds) = notice_clock(database).await? {
        tracing::warn!(
            clock.set_back_seconds = seconds,
            "the database's clock was set back; claims read again from there"
        );
    }
    let within = (!rotation_is_due).then_some(SPENT_WITHIN_SECONDS);
    dead_letter_spent_messages(database, within).await?;
    fold_counters(database).await?;
    cleanup_handed_out(database).await?;
    if rotation_is_due {
        // first: what fails below may be what it warns of
        match db::health::list(database).await {
            Ok(facts) => warnings.update(&facts),
            Err(error) => tracing::warn!(error = %error, "looking at the database's health failed"),
        }
        let retention = settings.cleanup_acked_messages_older_than_seconds;
        cleanup_acked_messages(database, retention).await?;
        cleanup_failures(database, retention).await?;
        cleanup_fair_lanes(database).await?;
        cleanup_idempotency_keys(database, settings.idempotency_window_seconds).await?;
        rotate(database, retention).await?;
    }
    Ok(true)
}

/// Let subscriptions expire.
async fn expire(database: &Database) -> Result<(), sqlx::Error> {
    for id in db::subscriptions::expire(database).await? {
        tracing::info!(
            subscription.id = id,
            "subscription {id} has expired: nobody kept it"
        );
    }
    Ok(())
}
