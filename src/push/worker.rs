//! One endpoint: claims its messages as there is room, sends them, and has them settled by what the receiver said.
//! It waits for nothing but what may happen next: what was claimed ages.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Shared;
use super::endpoints::Listed;
use super::health::{Health, Phase};
use super::lane::{Batch, Ended, MARGIN, Origin, Outcome, lanes};
use super::request::Target;
use super::results;
use crate::db::messages::{Claim, Delivery, Handle};
use crate::db::push::{PushEndpoint, try_probe};
use crate::engine::Claimed;
use crate::error::Error;

/// Who holds what is being pushed, in timelines.
const CONSUMER: &str = "push";
/// Pushes at a time of a subscription that does not say, and most of one server.
const SLOTS: usize = 10;
const MOST_SLOTS: usize = 100;
/// How long a pull waits for messages.
const WAIT: Duration = Duration::from_secs(30);
/// After something failed, such as the database, and for a probe that another server makes.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// What has ended waits so long for the others that are on their way: most of what was claimed together ends
/// together, and is settled for little more than one.
const GATHER: Duration = Duration::from_millis(5);

/// Pushes the messages of one subscription.
pub(super) struct Worker {
    shared: Arc<Shared>,
    subscription_id: String,
    listed: watch::Receiver<Listed>,
    endpoint: Arc<PushEndpoint>,
    target: Arc<Target>,
    health: Health,
    /// What was claimed for the endpoint of now may be sent.
    is_open: Arc<AtomicBool>,
    sending: JoinSet<()>,
    ended: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
    /// What was claimed, until it is being settled.
    held: HashMap<Uuid, Handle>,
    /// What has ended and is not being settled.
    done: Vec<Ended>,
    /// When the first of it has waited for long enough.
    gathered_at: Instant,
    /// How many are being settled.
    settling: usize,
    /// What has ended and says something of the endpoint that is not being noted.
    to_note: Vec<Ended>,
    /// How many are being noted.
    noting: usize,
    /// Nothing is claimed before.
    not_before: Instant,
}

/// How a claim went.
struct Pulled {
    claimed: Result<Claimed, Error>,
    since: Instant,
    lease_ends: Instant,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, listed: watch::Receiver<Listed>) -> Self {
        let now = listed.borrow().clone();
        let target = Arc::new(target(&now.endpoint));
        Self {
            subscription_id: now.endpoint.subscription_id.clone(),
            health: Health::of(&now),
            endpoint: now.endpoint,
            target,
            shared,
            listed,
            is_open: Arc::default(),
            sending: JoinSet::new(),
            ended: mpsc::channel(MOST_SLOTS),
            held: HashMap::new(),
            done: Vec::new(),
            gathered_at: Instant::now(),
            settling: 0,
            to_note: Vec::new(),
            noting: 0,
            not_before: Instant::now(),
        }
    }

    /// Push until `stop`; what is on its way then has until `give_up` to end.
    pub(super) async fn run(mut self, stop: CancellationToken, give_up: CancellationToken) {
        tokio::select! {
            () = self.work(&stop) => {}
            () = give_up.cancelled() => {}
        }
        self.sending.shutdown().await;
        let held: Vec<Handle> = self.held.into_values().collect();
        if !held.is_empty() {
            let engine = &self.shared.engine;
            engine.give_back(&self.subscription_id, &held).await;
        }
    }

    /// Ends once it is stopped and nothing is on its way.
    async fn work(&mut self, stop: &CancellationToken) {
        let mut pulling: Option<BoxFuture<'static, Pulled>> = None;
        let mut settling: Option<BoxFuture<'static, ()>> = None;
        let mut noting: Option<BoxFuture<'static, Health>> = None;
        // whether what is being pulled is one
        let mut is_probe = false;
        loop {
            if settling.is_none() && self.has_gathered() {
                settling = Some(self.settle());
            }
            if noting.is_none() && !self.to_note.is_empty() {
                noting = Some(self.note());
            }
            let is_stopped = stop.is_cancelled();
            if is_stopped && self.held.is_empty() && settling.is_none() && noting.is_none() {
                return;
            }
            let phase = self.health.phase();
            let is_due = matches!(phase, Phase::Due);
            let is_open = !is_stopped && (is_due || matches!(phase, Phase::Open));
            self.is_open.store(is_open, Ordering::Relaxed);
            if !is_open || is_due != is_probe {
                // what it may have claimed by now goes back
                pulling = None;
            }
            let room = if is_open { self.room(is_due) } else { 0 };
            if pulling.is_none() && room > 0 && self.not_before <= Instant::now() {
                is_probe = is_due;
                pulling = Some(self.pull(room));
            }
            let wakes_at = match phase {
                Phase::Paused(left) => Instant::now() + left,
                _ => self.not_before,
            };
            let sleeps = pulling.is_none() && wakes_at > Instant::now();
            let gathers = settling.is_none() && !self.done.is_empty();
            tokio::select! {
                pulled = next(&mut pulling) => self.begin(pulled, is_probe).await,
                () = next(&mut settling) => self.settling = 0,
                health = next(&mut noting) => {
                    self.noting = 0;
                    self.health.learn(health);
                }
                Some(ended) = self.ended.1.recv() => self.gather(ended),
                () = tokio::time::sleep_until(self.gathered_at), if gathers => {}
                changed = self.listed.changed(), if !is_stopped => match changed {
                    Ok(()) => if self.apply() {
                        pulling = None;
                    },
                    // there is no endpoint any more
                    Err(_) => stop.cancel(),
                },
                () = tokio::time::sleep_until(wakes_at), if sleeps => {}
                () = stop.cancelled(), if !is_stopped => {}
            }
        }
    }

    /// For how many more messages there is room.
    fn room(&self, is_due: bool) -> usize {
        let slots = if is_due {
            1
        } else {
            self.endpoint
                .max_in_flight
                .and_then(|most| usize::try_from(most).ok())
                .unwrap_or(SLOTS)
                .min(MOST_SLOTS)
        };
        // some count twice, as long as they are both settled and noted
        let ending = self.settling + self.to_note.len() + self.noting;
        slots.saturating_sub(self.held.len() + ending)
    }

    fn pull(&self, room: usize) -> BoxFuture<'static, Pulled> {
        let engine = self.shared.engine.clone();
        let id = self.subscription_id.clone();
        let lease = self.target.limit + MARGIN;
        let claim = Claim {
            consumer_id: CONSUMER.to_owned(),
            batch_size: i32::try_from(room).unwrap_or(1),
            ack_deadline_seconds: i32::try_from(lease.as_secs()).ok(),
            only: None,
            auto_ack: false,
        };
        let since = Instant::now();
        Box::pin(async move {
            let claimed = engine.pull(id, claim, WAIT, || async { Ok(()) }).await;
            Pulled {
                claimed,
                since,
                // of what was claimed just now, however long it waited for
                lease_ends: Instant::now() + lease,
            }
        })
    }

    /// Send what was claimed.
    async fn begin(&mut self, pulled: Pulled, is_probe: bool) {
        let Claimed {
            deliveries, share, ..
        } = match pulled.claimed {
            Ok(claimed) => claimed,
            Err(error) => {
                // deleted, or the database is away: the list of endpoints will say so
                tracing::debug!(subscription.id = %self.subscription_id, %error, "no claim");
                self.not_before = Instant::now() + PAUSE;
                return;
            }
        };
        if deliveries.is_empty() {
            // also of an engine that ends
            if pulled.since.elapsed() < PAUSE {
                self.not_before = Instant::now() + PAUSE;
            }
            return;
        }
        let handles: Vec<Handle> = deliveries.iter().map(Delivery::handle).collect();
        for handle in &handles {
            self.held.insert(handle.message_id, *handle);
        }
        if is_probe && !self.try_probe(&handles).await {
            return;
        }
        let batch = Arc::new(Batch {
            endpoint: Arc::clone(&self.endpoint),
            target: Arc::clone(&self.target),
            dialer: self.shared.dialer.clone(),
            places: Arc::clone(&self.shared.places),
            show: self.shared.show,
            origin: Origin {
                version: self.endpoint.version,
                is_probe,
                lease_ends: pulled.lease_ends,
            },
            is_open: Arc::clone(&self.is_open),
            share: Mutex::new(share),
        });
        for lane in lanes(deliveries, self.endpoint.is_ordered) {
            let sending = Arc::clone(&batch).send(lane, self.ended.0.clone());
            self.sending.spawn(sending);
        }
    }

    /// Whether this server is the one that tries the endpoint; if not, what it claimed for that goes back.
    async fn try_probe(&mut self, claimed: &[Handle]) -> bool {
        let shared = &self.shared;
        let tries = try_probe(&shared.database, &self.subscription_id).await;
        let is_tried = matches!(tries, Ok(true));
        if !is_tried {
            let engine = &shared.engine;
            engine.give_back(&self.subscription_id, claimed).await;
            for handle in claimed {
                self.held.remove(&handle.message_id);
            }
            self.not_before = Instant::now() + PAUSE;
        }
        is_tried
    }

    /// A delivery has ended, perhaps with others.
    fn gather(&mut self, ended: Ended) {
        if self.done.is_empty() {
            self.gathered_at = Instant::now() + GATHER;
        }
        self.done.push(ended);
        while let Ok(ended) = self.ended.1.try_recv() {
            self.done.push(ended);
        }
    }

    /// Whether what has ended is to be settled now.
    fn has_gathered(&self) -> bool {
        let waits = self.done.len() < self.held.len() && Instant::now() < self.gathered_at;
        !self.done.is_empty() && !waits
    }

    /// What settles those that have ended.
    fn settle(&mut self) -> BoxFuture<'static, ()> {
        // reaps what has ended
        while self.sending.try_join_next().is_some() {}
        let done = std::mem::take(&mut self.done);
        self.settling = done.len();
        for ended in &done {
            self.held.remove(&ended.handle.message_id);
            match ended.outcome {
                Outcome::Unsent => {}
                Outcome::Busy => self.not_before = Instant::now() + PAUSE,
                Outcome::Delivered { .. } if !self.may_have_failed() => {}
                _ => self.to_note.push(ended.clone()),
            }
        }
        let shared = Arc::clone(&self.shared);
        let id = self.subscription_id.clone();
        Box::pin(async move { results::settle(&shared, &id, done).await })
    }

    fn may_have_failed(&self) -> bool {
        self.health.has_failed() || !self.to_note.is_empty() || self.noting > 0
    }

    /// What notes what those that have ended say of the endpoint.
    fn note(&mut self) -> BoxFuture<'static, Health> {
        let results = std::mem::take(&mut self.to_note);
        self.noting = results.len();
        let shared = Arc::clone(&self.shared);
        let endpoint = Arc::clone(&self.endpoint);
        let health = self.health;
        Box::pin(async move { results::note(&shared, &endpoint, health, results).await })
    }

    /// Take over what was listed anew; whether the endpoint is another one now.
    fn apply(&mut self) -> bool {
        let listed = self.listed.borrow_and_update().clone();
        self.health.learn(Health::of(&listed));
        let is_other = listed.endpoint.version != self.endpoint.version;
        if is_other {
            // what was claimed for the one of before and is not sent yet goes back
            self.is_open.store(false, Ordering::Relaxed);
            self.is_open = Arc::default();
            self.target = Arc::new(target(&listed.endpoint));
        }
        self.endpoint = listed.endpoint;
        is_other
    }
}

/// An endpoint as it is pushed to.
pub(super) fn target(endpoint: &PushEndpoint) -> Target {
    let seconds = u64::try_from(endpoint.timeout_seconds).unwrap_or(1);
    Target::new(
        &endpoint.endpoint,
        &endpoint.headers,
        &endpoint.secrets,
        Duration::from_secs(seconds),
    )
}

/// What a future gives, which is over then; never, if there is none.
async fn next<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    let Some(running) = future else {
        return std::future::pending().await;
    };
    let given = running.await;
    *future = None;
    given
}
