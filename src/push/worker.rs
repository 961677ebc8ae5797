//! One endpoint: claims its messages as there is room, sends them, and settles them by what the receiver said.
//! What follows from failures for the endpoint itself is shared with other servers through the database.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Shared;
use super::endpoints::Listed;
use super::health::{Health, Phase};
use super::lane::{Batch, Ended, MARGIN, Outcome, lanes};
use super::request::Target;
use crate::db::messages::{Claim, Handle};
use crate::db::push::{PushEndpoint, note_result, try_probe};
use crate::db::settlements::{Action, Settlement};
use crate::engine::{Claimed, Engine};
use crate::error::Error;

/// Who holds what is being pushed, in timelines.
const CONSUMER: &str = "push";
/// Pushes at a time of a subscription that does not say, and most of one server.
const SLOTS: usize = 10;
const MOST_SLOTS: usize = 100;
/// How long a pull waits for messages.
const WAIT: Duration = Duration::from_secs(30);
/// After something failed, such as the database, and for a probe that another server makes.
const PAUSE: Duration = Duration::from_secs(1);
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
    /// What is held is the probe of an endpoint whose pause is over.
    is_probing: bool,
    /// Nothing is claimed before.
    not_before: Instant,
}

type Pull = BoxFuture<'static, (Instant, Result<Claimed, Error>)>;
type Settle = BoxFuture<'static, ()>;

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, listed: watch::Receiver<Listed>) -> Self {
        let now = listed.borrow().clone();
        let target = Arc::new(target(&now.endpoint));
        Self {
            subscription_id: now.endpoint.subscription_id.clone(),
            health: Health::of(&now.endpoint),
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
            is_probing: false,
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
        let mut pulling: Option<Pull> = None;
        let mut settling: Option<Settle> = None;
        loop {
            if settling.is_none() && self.has_gathered() {
                settling = Some(self.end_all().await);
            }
            let is_stopped = stop.is_cancelled();
            let phase = self.health.phase(Utc::now());
            let is_open = !is_stopped && matches!(phase, Phase::Open | Phase::Due);
            self.is_open.store(is_open, Ordering::Relaxed);
            if is_stopped && self.held.is_empty() && settling.is_none() {
                return;
            }
            let room = if is_open { self.room(phase) } else { 0 };
            if !is_open {
                // what it may have claimed by now goes back
                pulling = None;
            } else if pulling.is_none() && room > 0 && self.not_before <= Instant::now() {
                pulling = Some(self.pull(room));
            }
            let wakes_at = match phase {
                Phase::Paused(left) => Instant::now() + left,
                _ => self.not_before,
            };
            let sleeps = pulling.is_none() && wakes_at > Instant::now();
            let gathers = settling.is_none() && !self.done.is_empty();
            tokio::select! {
                claimed = next(&mut pulling) => {
                    self.begin(claimed, phase).await;
                }
                () = next(&mut settling) => self.settling = 0,
                Some(ended) = self.ended.1.recv() => self.gather(ended),
                () = tokio::time::sleep_until(self.gathered_at), if gathers => {}
                changed = self.listed.changed(), if !is_stopped => match changed {
                    Ok(()) => self.apply(),
                    // there is no endpoint any more
                    Err(_) => stop.cancel(),
                },
                () = tokio::time::sleep_until(wakes_at), if sleeps => {}
                () = stop.cancelled(), if !is_stopped => {}
            }
        }
    }

    /// For how many more messages there is room.
    fn room(&self, phase: Phase) -> usize {
        let slots = match phase {
            Phase::Due => 1,
            _ => self
                .endpoint
                .max_in_flight
                .and_then(|most| usize::try_from(most).ok())
                .unwrap_or(SLOTS)
                .min(MOST_SLOTS),
        };
        slots.saturating_sub(self.held.len() + self.settling)
    }

    fn pull(&self, room: usize) -> Pull {
        let engine = self.shared.engine.clone();
        let id = self.subscription_id.clone();
        let deadline = i64::from(self.endpoint.timeout_seconds)
            + i64::try_from(MARGIN.as_secs()).unwrap_or_default();
        let claim = Claim {
            consumer_id: CONSUMER.to_owned(),
            batch_size: i32::try_from(room).unwrap_or(1),
            ack_deadline_seconds: i32::try_from(deadline).ok(),
            only: None,
            auto_ack: false,
        };
        let since = Instant::now();
        Box::pin(async move {
            let claimed = engine.pull(id, claim, WAIT, || async { Ok(()) }).await;
            (since, claimed)
        })
    }

    /// Send what was claimed.
    async fn begin(&mut self, (since, claimed): (Instant, Result<Claimed, Error>), phase: Phase) {
        let Claimed {
            deliveries, share, ..
        } = match claimed {
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
            if since.elapsed() < PAUSE {
                self.not_before = Instant::now() + PAUSE;
            }
            return;
        }
        for delivery in &deliveries {
            self.held.insert(delivery.message_id, delivery.handle());
        }
        if matches!(phase, Phase::Due) && !self.try_probe().await {
            return;
        }
        let batch = Arc::new(Batch {
            endpoint: Arc::clone(&self.endpoint),
            target: Arc::clone(&self.target),
            dialer: self.shared.dialer.clone(),
            places: Arc::clone(&self.shared.places),
            show: self.shared.show,
            claimed_at: Instant::now(),
            is_open: Arc::clone(&self.is_open),
            _share: share,
        });
        for lane in lanes(deliveries, self.endpoint.is_ordered) {
            let sending = Arc::clone(&batch).send(lane, self.ended.0.clone());
            self.sending.spawn(sending);
        }
    }

    /// Whether this server is the one that tries the endpoint; if not, what it claimed goes back.
    async fn try_probe(&mut self) -> bool {
        let tries = try_probe(&self.shared.database, &self.subscription_id).await;
        self.is_probing = matches!(tries, Ok(true));
        if !self.is_probing {
            let held: Vec<Handle> = self.held.drain().map(|(_, handle)| handle).collect();
            self.shared
                .engine
                .give_back(&self.subscription_id, &held)
                .await;
            self.not_before = Instant::now() + PAUSE;
        }
        self.is_probing
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

    /// Note what those that have ended say of the endpoint; what settles them.
    async fn end_all(&mut self) -> Settle {
        // reaps what has ended
        while self.sending.try_join_next().is_some() {}
        let mut settlements = Vec::new();
        let mut unsent = Vec::new();
        let done = std::mem::take(&mut self.done);
        self.settling = done.len();
        for Ended { handle, outcome } in done {
            self.held.remove(&handle.message_id);
            self.note(&outcome).await;
            match self.action(outcome) {
                Some(action) => settlements.push(Settlement {
                    message_id: handle.message_id,
                    lease: handle.lease.unwrap_or_default(),
                    action,
                }),
                None => unsent.push(handle),
            }
        }
        self.is_probing &= !self.held.is_empty();
        let engine = self.shared.engine.clone();
        let id = self.subscription_id.clone();
        Box::pin(async move {
            if !unsent.is_empty() {
                engine.give_back(&id, &unsent).await;
            }
            if !settlements.is_empty() {
                settle(&engine, &id, settlements).await;
            }
        })
    }

    /// How a delivery is settled; not at all if it counts as not sent.
    fn action(&self, outcome: Outcome) -> Option<Action> {
        match outcome {
            Outcome::Delivered { note } => Some(Action::Noted { note }),
            // it says nothing of the message, which has waited for the endpoint without spending attempts
            Outcome::Failed { is_down: true, .. } if self.is_probing => None,
            Outcome::Failed {
                reason,
                retry_after,
                ..
            } => Some(Action::Nack {
                seconds: retry_after.map(|wait| wait.as_secs_f64()),
                reason: Some(reason),
            }),
            Outcome::Gone { .. } | Outcome::Unsent => None,
        }
    }

    /// Tell other servers what a push says of the endpoint, where it says anything new.
    async fn note(&mut self, outcome: &Outcome) {
        let (is_success, reason) = match outcome {
            Outcome::Delivered { .. } if self.health.has_failed() => (true, None),
            Outcome::Delivered { .. } | Outcome::Unsent => return,
            Outcome::Failed { reason, .. } | Outcome::Gone { reason } => (false, Some(reason)),
        };
        let is_gone = matches!(outcome, Outcome::Gone { .. });
        // of a push from before the pause, which changes nothing
        if !is_success && !is_gone && !self.is_probing && self.health.is_paused() {
            return;
        }
        let reason = reason.map(String::as_str);
        let id = &self.subscription_id;
        let noted = note_result(&self.shared.database, id, is_success, reason, is_gone).await;
        match noted {
            Ok(paused_until) => {
                let was_paused = self.health.is_paused();
                self.health
                    .noted(is_success, paused_until.map(|until| until.0));
                self.tell(was_paused, reason);
            }
            Err(error) => {
                tracing::debug!(subscription.id = %id, %error, "the result of a push was not noted");
            }
        }
        if !matches!(self.health.phase(Utc::now()), Phase::Open) {
            self.is_open.store(false, Ordering::Relaxed);
        }
    }

    fn tell(&self, was_paused: bool, reason: Option<&str>) {
        let id = self.subscription_id.as_str();
        let reason = reason.unwrap_or_default();
        match self.health.phase(Utc::now()) {
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

    /// Take over what was listed anew.
    fn apply(&mut self) {
        let listed = self.listed.borrow_and_update().clone();
        self.health.listed(&listed);
        if listed.endpoint.version != self.endpoint.version {
            self.target = Arc::new(target(&listed.endpoint));
        }
        self.endpoint = listed.endpoint;
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

/// Until the database takes it, or the leases have run out: then the messages are pushed again.
async fn settle(engine: &Engine, subscription_id: &str, settlements: Vec<Settlement>) {
    let until = Instant::now() + MARGIN / 2;
    loop {
        let settled = engine.settle(subscription_id.to_owned(), settlements.clone());
        match settled.await {
            Err(Error::Unavailable(_) | Error::Busy(_)) if Instant::now() < until => {
                sleep(PAUSE).await;
            }
            // deleted meanwhile
            Err(Error::Refused { .. }) | Ok(_) => return,
            Err(error) => {
                tracing::warn!(
                    subscription.id = %subscription_id,
                    messages = settlements.len(),
                    %error,
                    "what was pushed could not be settled and may be pushed again"
                );
                return;
            }
        }
    }
}
