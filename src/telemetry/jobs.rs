//! The end of each job, in the log.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::jobs::Job;

/// The jobs whose end was logged.
#[derive(Debug)]
pub struct Ended {
    since: DateTime<Utc>,
    told: BTreeSet<Uuid>,
}

impl Ended {
    /// Tell of those that end from now on.
    #[must_use]
    pub fn from_now() -> Self {
        Self {
            since: Utc::now(),
            told: BTreeSet::new(),
        }
    }

    /// Log the end of each of the jobs that was not logged yet.
    pub fn update(&mut self, jobs: &[Job]) {
        for job in jobs {
            if job.updated_at.0 >= self.since && !self.told.contains(&job.id) {
                log(job);
            }
        }
        self.told = jobs.iter().map(|job| job.id).collect();
    }
}

fn log(job: &Job) {
    let duration = job.updated_at.0 - job.created_at.0;
    macro_rules! ended {
        ($level:ident) => {
            tracing::$level!(
                job.id = %job.id,
                job.kind = job.kind,
                job.state = job.state,
                job.scanned = job.scanned,
                job.changed = job.changed,
                job.duration_ms = duration.num_milliseconds(),
                job.error = job.error.as_deref(),
                subscription.id = job.subscription_id,
                "{} of {} is {}: {} messages scanned, {} changed",
                job.kind,
                job.subscription_id,
                job.state,
                job.scanned,
                job.changed,
            )
        };
    }
    if job.state == "failed" {
        ended!(error);
    } else {
        ended!(info);
    }
}
