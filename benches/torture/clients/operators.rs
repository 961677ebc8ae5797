//! Operators: one pauses a subscription and lets it go on, one purges a subscription, one changes messages that
//! are on their way. The last two ask the database themselves.

use std::sync::Arc;

use rand::RngExt;
use rand::seq::IndexedRandom;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::super::books;
use super::super::faults::Faults;
use super::super::history::{Event, Outcome, PSQL, What};
use super::super::stage::{Phase, Stage};
use super::super::world::{MENDED_TOPIC, PAUSED, PURGED, revised};
use super::Session;

/// Pause and go on; in the end, go on until the run is over, whatever is still under way of a pause.
pub async fn pause(stage: Arc<Stage>) -> Vec<Event> {
    let mut session = Session::new(&stage, "pauser");
    while session.is_running() {
        session.pause(500..3000).await;
        set_paused(&mut session, true).await;
        session.pause(200..2000).await;
        set_paused(&mut session, false).await;
    }
    while stage.phase() != Phase::Over {
        set_paused(&mut session, false).await;
        session.pause(200..400).await;
    }
    session.finish()
}

async fn set_paused(session: &mut Session, paused: bool) {
    let path = format!("/subscriptions/{PAUSED}");
    let body = format!(r#"{{"paused": {paused}}}"#);
    let what = |_: Option<&Value>| What::Pause {
        subscription: PAUSED,
        paused,
    };
    session.call(("PATCH", &path, &body), what).await;
}

/// Purge, each time after a look at what there is.
pub async fn purge(faults: Arc<Faults>) -> Vec<Event> {
    let mut session = Session::new(&faults.stage, "purger");
    let path = format!("/subscriptions/{PURGED}/messages");
    while session.is_running() {
        session.pause(500..5000).await;
        let Ok(mut connection) = connect(&faults).await else {
            continue;
        };
        let sent = faults.stage.clock.now();
        // what failed told nothing
        let Ok(found) = books::read_one(&mut connection, PURGED).await else {
            continue;
        };
        let what = What::Inspect {
            subscription: PURGED,
            found,
        };
        let looked = (sent, faults.stage.clock.now());
        session.note(PSQL, looked, Outcome::Done, what);
        let what = |_: Option<&Value>| What::Purge {
            subscription: PURGED,
        };
        session.call(("DELETE", &path, ""), what).await;
    }
    session.finish()
}

/// Change messages that are not settled, some more than once.
pub async fn update(faults: Arc<Faults>) -> Vec<Event> {
    let mut session = Session::new(&faults.stage, "updater");
    let mut revision = 0;
    while session.is_running() {
        session.pause(20..200).await;
        let subscription = [PAUSED, "parcels-all"][session.random.random_range(0..2)];
        let found = browse(&mut session, subscription).await;
        // one that was open for longer tells of outages that are long over
        let Ok(mut connection) = connect(&faults).await else {
            continue;
        };
        for (id, number) in found {
            revision += 1;
            let sent = faults.stage.clock.now();
            let updated: Result<bool, sqlx::Error> =
                sqlx::query_scalar("select pubsub.update_message($1, $2, $3)")
                    .bind(MENDED_TOPIC)
                    .bind(id)
                    .bind(revised(faults.stage.seed, number, revision))
                    .fetch_one(&mut connection)
                    .await;
            let outcome = outcome_of(&updated);
            let updated = (sent, faults.stage.clock.now());
            session.note(PSQL, updated, outcome, What::Update { id, revision });
            if outcome != Outcome::Done {
                break;
            }
        }
    }
    session.finish()
}

/// Some messages that are not settled.
async fn browse(session: &mut Session, subscription: &str) -> Vec<(Uuid, u64)> {
    let path = format!("/subscriptions/{subscription}/browse?limit=30");
    let mut found = Vec::new();
    let what = |body: Option<&Value>| {
        let messages = body.and_then(|body| body["data"].as_array());
        for message in messages.into_iter().flatten() {
            let id = Uuid::parse_str(message["id"].as_str().unwrap()).unwrap();
            found.push((id, message["payload"]["n"].as_u64().unwrap()));
        }
        What::Read
    };
    session.call(("GET", &path, ""), what).await;
    found.sample(&mut session.random, 4).copied().collect()
}

async fn connect(faults: &Faults) -> Result<PgConnection, sqlx::Error> {
    let mut connection = faults.cluster.connect().await?;
    // a plan made right after a crash may take forever
    sqlx::query("set statement_timeout = '20s'")
        .execute(&mut connection)
        .await?;
    Ok(connection)
}

/// As a server would answer.
fn outcome_of(answer: &Result<bool, sqlx::Error>) -> Outcome {
    let failed = |status| Outcome::Failed {
        status,
        retry_after: true,
    };
    match answer {
        Ok(true) => Outcome::Done,
        // messages are kept for longer than a run
        Ok(false) => Outcome::Refused(404),
        Err(sqlx::Error::Database(error)) => {
            let code = error.code().unwrap_or_default();
            let is_away =
                ["08", "53", "57", "58"].contains(&&*code.chars().take(2).collect::<String>());
            if !is_away {
                eprintln!("update_message: {error}");
            }
            failed(if is_away { 503 } else { 500 })
        }
        Err(_) => failed(503),
    }
}
