//! How much memory requests may take together: bytes of bodies, bytes of answers, and how many large
//! bodies are parsed at a time. Who does not get a share within a few seconds is told to come back.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Settings;
use crate::error::Error;

/// For a share, once there is none left.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of one unit of a share.
const UNIT: usize = 1024;
/// Bodies up to it have a share of their own, so that large publishes do not hold up acks.
const SMALL: usize = 64 * UNIT;
/// What all streams together may have beside the answers: one part of so many of what these have.
const STREAMS: usize = 4;
/// For all small bodies.
const SMALL_TOTAL: usize = 8 * 1024 * UNIT;

/// The shares that are left. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    small_bodies: Arc<Semaphore>,
    large_bodies: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    all_answers: usize,
    streams: Arc<Semaphore>,
    all_streams: usize,
    parsing: Arc<Semaphore>,
}

impl Budget {
    /// As the settings say; the largest body always fits.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let large = settings
            .api_max_body_bytes_in_flight
            .max(settings.api_max_body_bytes);
        let answers = settings.api_max_answer_bytes_in_flight;
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            small_bodies: Arc::new(Semaphore::new(units(SMALL_TOTAL))),
            large_bodies: Arc::new(Semaphore::new(units(large))),
            answers: Arc::new(Semaphore::new(units(answers))),
            all_answers: answers,
            streams: Arc::new(Semaphore::new(units(answers / STREAMS))),
            all_streams: answers / STREAMS,
            parsing: Arc::new(Semaphore::new(cores)),
        }
    }

    /// A share for a body of so many bytes.
    ///
    /// # Errors
    /// 503 when others have taken all of it for too long.
    pub async fn body(&self, bytes: usize) -> Result<Share, Error> {
        let lane = if bytes <= SMALL {
            &self.small_bodies
        } else {
            &self.large_bodies
        };
        take(
            lane,
            units(bytes),
            "too many bytes of request bodies are in flight (FASTPUBSUB_API_MAX_BODY_BYTES_IN_FLIGHT)",
        )
        .await
        .map(Share)
    }

    /// A share for an answer of about so many bytes; whoever needs more than all gets all.
    ///
    /// # Errors
    /// 503 when others have taken too much of it for too long.
    pub async fn answer(&self, bytes: usize) -> Result<Share, Error> {
        let refusal =
            "too many bytes of answers are in flight (FASTPUBSUB_API_MAX_ANSWER_BYTES_IN_FLIGHT)";
        let units = units(bytes.min(self.all_answers));
        take(&self.answers, units, refusal).await.map(Share)
    }

    /// The same, but for what it calls answers: those are of streams, and have a lane of their own, so that
    /// clients that stream and do not read hold up nobody else.
    #[must_use]
    pub fn for_streams(&self) -> Self {
        Self {
            answers: Arc::clone(&self.streams),
            all_answers: self.all_streams,
            ..self.clone()
        }
    }

    /// Do work that takes as long as a body of so many bytes is long: at once if that is short, else
    /// beside the threads that serve requests, and only so many at a time.
    ///
    /// # Errors
    /// 500 when it panics.
    pub async fn work<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        if bytes <= SMALL {
            return Ok(work());
        }
        let _turn = self.parsing.acquire().await;
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| Error::Internal(Arc::new(error)))
    }
}

/// What was taken of a budget; its end gives it back.
#[derive(Debug)]
pub struct Share(OwnedSemaphorePermit);

impl Share {
    /// Give back what is beyond so many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        let beyond = self.0.num_permits().saturating_sub(units(bytes));
        drop(self.0.split(beyond));
    }

    /// Make it fit so many bytes, as far as there is more.
    pub fn fit(&mut self, bytes: usize) {
        match units(bytes).checked_sub(self.0.num_permits()) {
            None => self.shrink(bytes),
            Some(lacking) => {
                let lacking = u32::try_from(lacking).unwrap_or(u32::MAX);
                if let Ok(more) = Arc::clone(self.0.semaphore()).try_acquire_many_owned(lacking) {
                    self.0.merge(more);
                }
            }
        }
    }

    /// For how many bytes it is.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.num_permits() * UNIT
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT)
}

async fn take(
    lane: &Arc<Semaphore>,
    units: usize,
    refusal: &'static str,
) -> Result<OwnedSemaphorePermit, Error> {
    let units = u32::try_from(units).unwrap_or(u32::MAX);
    if let Ok(share) = Arc::clone(lane).try_acquire_many_owned(units) {
        return Ok(share);
    }
    let share = Arc::clone(lane).acquire_many_owned(units);
    match tokio::time::timeout(PATIENCE, share).await {
        Ok(Ok(share)) => Ok(share),
        _ => Err(Error::Busy(refusal)),
    }
}
