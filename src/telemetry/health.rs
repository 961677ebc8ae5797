//! The health of the database, as gauges and in the log. What is looked at, and past which bound it is
//! warned of, stands in `sql/observe/health.sql`.

use std::collections::BTreeSet;

use crate::db::database::Database;
use metrics::{describe_gauge, gauge};

use crate::db;
use crate::db::health::Fact;

/// Read the facts and set a gauge for each: `pubsub_` and its name, labelled with its subject.
pub(super) async fn set_gauges(pool: &Database) {
    match db::health::list(pool).await {
        Ok(facts) => facts.iter().for_each(show),
        Err(error) => tracing::warn!(error = %error, "reading the database's health failed"),
    }
}

fn show(fact: &Fact) {
    let Some(value) = fact.value else { return };
    let name = format!("pubsub_{}", fact.name);
    describe_gauge!(name.clone(), fact.meaning.clone());
    let labels: Vec<(String, String)> = fact
        .subject_kind
        .clone()
        .zip(fact.subject.clone())
        .into_iter()
        .collect();
    gauge!(name, &labels).set(value);
}

/// The warnings that were logged and hold still.
#[derive(Default)]
pub struct Warnings(BTreeSet<(String, Option<String>)>);

impl Warnings {
    /// Log each warning that is new, and each that is over.
    pub fn update(&mut self, facts: &[Fact]) {
        let mut now = BTreeSet::new();
        for fact in facts {
            let Some(warning) = &fact.warning else {
                continue;
            };
            let key = (fact.name.clone(), fact.subject.clone());
            if !self.0.remove(&key) {
                tracing::warn!(
                    health.fact = fact.name,
                    health.subject = fact.subject,
                    health.value = fact.value,
                    "{}: {} {}: {warning}",
                    described(&key),
                    fact.value.unwrap_or_default().round(),
                    fact.unit,
                );
            }
            now.insert(key);
        }
        for key in &self.0 {
            // at the level of the warning, so that who saw that sees this
            tracing::warn!(
                health.fact = key.0,
                health.subject = key.1,
                "{}: within its bound again",
                described(key),
            );
        }
        self.0 = now;
    }
}

fn described((name, subject): &(String, Option<String>)) -> String {
    subject
        .as_ref()
        .map_or_else(|| name.clone(), |subject| format!("{name} of {subject}"))
}
