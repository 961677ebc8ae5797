//! Clients that work as fast as they can, and how fast that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::meter::{Cost, Meter};

/// Longer than any drain.
const FINISH_LIMIT: Duration = Duration::from_secs(300);

/// Concurrent clients of one kind.
#[derive(Default)]
pub(crate) struct Crowd {
    clients: JoinSet<()>,
    progress: Progress,
}

/// How many messages the clients have done, and whether they shall stop.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<(AtomicU64, AtomicBool)>);

/// What a round found.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) rate: f64,
    pub(crate) cost: Cost,
}

impl Progress {
    pub(crate) fn add(&self, messages: usize) {
        self.0.0.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// What a consumer found, which may be nothing yet.
    pub(crate) async fn add_or_pause(&self, messages: usize) {
        match messages {
            0 => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => self.add(messages),
        }
    }

    pub(crate) fn done(&self) -> u64 {
        self.0.0.load(Ordering::Relaxed)
    }

    pub(crate) fn stopped(&self) -> bool {
        self.0.1.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.0.1.store(true, Ordering::Relaxed);
    }
}

impl Crowd {
    pub(crate) fn spawn<F>(&mut self, client: impl FnOnce(Progress) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.clients.spawn(client(self.progress.clone()));
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Messages a second over a time, after a warm-up.
    pub(crate) async fn measure(
        self,
        meter: &mut Meter,
        warm_up: Duration,
        length: Duration,
    ) -> Sample {
        tokio::time::sleep(warm_up).await;
        let start = meter.read(|| self.progress.done()).await;
        tokio::time::sleep(length).await;
        let end = meter.read(|| self.progress.done()).await;
        self.stop().await;
        let (rate, cost) = end.since(&start);
        Sample { rate, cost }
    }

    /// Messages a second until so many are done.
    pub(crate) async fn finish(mut self, meter: &mut Meter, messages: u64) -> Sample {
        let start = meter.read(|| 0).await;
        while self.progress.done() < messages {
            let ended = start.at.elapsed() > FINISH_LIMIT;
            assert!(!ended, "only {} of {messages} done", self.progress.done());
            if let Some(failed) = self.clients.try_join_next() {
                failed.expect("a client failed");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let end = meter.read(|| self.progress.done()).await;
        self.stop().await;
        let (rate, cost) = end.since(&start);
        Sample { rate, cost }
    }

    pub(crate) async fn stop(mut self) {
        self.progress.stop();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client failed");
        }
    }
}

/// The one in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The sample of the median rate.
pub(crate) fn median_sample(samples: &[Sample]) -> Sample {
    let rate = median(samples.iter().map(|sample| sample.rate));
    let sample = samples.iter().find(|sample| sample.rate == rate);
    *sample.unwrap()
}

/// Milliseconds since.
pub(crate) fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
