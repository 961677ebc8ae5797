//! Deliveries that are sent one after the other: those of an ordering key, else each by itself.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::connection::Dialer;
use super::failure::Failure;
use super::request::{Sent, Target, send};
use crate::budget::Share;
use crate::db::messages::{Delivery, Handle};
use crate::db::push::PushEndpoint;
use crate::telemetry::push;

/// Of an ack deadline: for settling what was sent just before.
pub(super) const MARGIN: Duration = Duration::from_secs(10);

/// How the receiver of an endpoint is shown a delivery.
pub type Show = fn(&PushEndpoint, &Delivery) -> Vec<u8>;

/// Of which claim a delivery is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Of the endpoint that it was for.
    pub(super) version: i64,
    /// It tries an endpoint whose pause is over.
    pub(super) is_probe: bool,
    pub(super) lease_ends: Instant,
}

/// What became of a delivery.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) handle: Handle,
    pub(super) attempts: i32,
    pub(super) outcome: Outcome,
    pub(super) origin: Origin,
}

impl Ended {
    /// Whether it goes back once it was noted what it says of the endpoint: of its message it says nothing. Where
    /// nobody could be asked, any other message would have failed, too; one that waited for the endpoint spends no
    /// attempt for that.
    pub(super) fn goes_back_noted(&self) -> bool {
        match self.outcome {
            Outcome::Gone { .. } => true,
            Outcome::Failed { is_reached, .. } => self.origin.is_probe && !is_reached,
            Outcome::Delivered { .. } | Outcome::Unsent | Outcome::Busy => false,
        }
    }
}

/// How a delivery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The receiver has it.
    Delivered { note: String },
    /// It does not.
    Failed {
        reason: String,
        /// It wants to be left alone for so long.
        retry_after: Option<Duration>,
        /// It was asked.
        is_reached: bool,
    },
    /// It wants no more messages at all.
    Gone { reason: String },
    /// It was not asked.
    Unsent,
    /// Nor could it be: this server has too much to do.
    Busy,
}

impl Outcome {
    /// It made us fail, and counts as tried: or it would come again at once, and again.
    fn broken() -> Self {
        Self::Failed {
            reason: "a defect of the server".to_owned(),
            retry_after: None,
            is_reached: true,
        }
    }

    fn of(sent: &Sent) -> Self {
        let took = sent.took.as_millis();
        match &sent.answer {
            Ok(answer) => {
                let status = answer.status;
                let reason = format!("HTTP {status} in {took} ms");
                match status {
                    _ if answer.is_success() => Self::Delivered { note: reason },
                    410 => Self::Gone { reason },
                    _ => Self::Failed {
                        reason,
                        retry_after: answer.retry_after,
                        is_reached: true,
                    },
                }
            }
            Err(Failure::Busy) => Self::Busy,
            Err(failure) => Self::Failed {
                reason: failure.to_string(),
                retry_after: None,
                is_reached: sent.is_reached,
            },
        }
    }
}

/// What all deliveries of one claim have in common.
pub(super) struct Batch {
    pub(super) endpoint: Arc<PushEndpoint>,
    pub(super) target: Arc<Target>,
    pub(super) dialer: Dialer,
    pub(super) places: Arc<Semaphore>,
    pub(super) show: Show,
    pub(super) origin: Origin,
    /// Nothing more is sent once this is false.
    pub(super) is_open: Arc<AtomicBool>,
    /// Of the memory that messages on their way may take.
    pub(super) share: Mutex<Option<Share>>,
}

impl Batch {
    /// Send deliveries one after the other. When one fails, those after it are not sent.
    pub(super) async fn send(self: Arc<Self>, lane: Vec<Delivery>, ended: mpsc::Sender<Ended>) {
        let mut goes_on = true;
        for delivery in lane {
            let outcome = if goes_on {
                // what is held ends only when it is told of
                let sent = AssertUnwindSafe(self.send_in_turn(&delivery)).catch_unwind();
                sent.await.unwrap_or_else(|_| Outcome::broken())
            } else {
                Outcome::Unsent
            };
            goes_on = matches!(outcome, Outcome::Delivered { .. });
            self.release(delivery.size());
            let told = Ended {
                handle: delivery.handle(),
                attempts: delivery.attempts,
                outcome,
                origin: self.origin,
            };
            let _stopped = ended.send(told).await;
        }
    }

    /// Let others have the memory of a message, also while those that were claimed with it are on their way.
    fn release(&self, bytes: usize) {
        let mut share = self.share.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = &mut *share {
            share.shrink(share.bytes().saturating_sub(bytes));
        }
    }

    /// Send a delivery once there is a place for it, unless it is too late then.
    async fn send_in_turn(&self, delivery: &Delivery) -> Outcome {
        let _place = self.places.acquire().await;
        if self.may_send() {
            self.send_one(delivery).await
        } else {
            Outcome::Unsent
        }
    }

    /// Whether there is time for all of a push before the ack deadline, and anything is to be sent at all.
    fn may_send(&self) -> bool {
        let ends = Instant::now() + self.target.limit + MARGIN / 2;
        self.is_open.load(Ordering::Relaxed) && ends < self.origin.lease_ends
    }

    async fn send_one(&self, delivery: &Delivery) -> Outcome {
        let body = Bytes::from((self.show)(&self.endpoint, delivery));
        let id = delivery.message_id.to_string();
        let sent = send(&self.dialer, &self.target, &id, body).await;
        let outcome = Outcome::of(&sent);
        if outcome != Outcome::Busy {
            push::count(kind(&sent), sent.took);
        }
        tracing::debug!(
            subscription.id = %self.endpoint.subscription_id,
            message.id = %id,
            attempt = delivery.attempts,
            duration_ms = u64::try_from(sent.took.as_millis()).unwrap_or(u64::MAX),
            ?outcome,
            "pushed"
        );
        outcome
    }
}

fn kind(sent: &Sent) -> &'static str {
    match &sent.answer {
        Ok(answer) if answer.is_success() => "delivered",
        Ok(answer) if answer.status == 410 => "gone",
        Ok(_) => "failed",
        Err(failure) => failure.kind(),
    }
}

/// Deliveries by what must not be sent side by side, in their order.
pub(super) fn lanes(deliveries: Vec<Delivery>, is_ordered: bool) -> Vec<Vec<Delivery>> {
    let mut lanes: Vec<Vec<Delivery>> = Vec::new();
    for delivery in deliveries {
        let key = delivery.ordering_key.as_deref().filter(|_| is_ordered);
        let of_key = |lane: &&mut Vec<Delivery>| {
            lane.first()
                .is_some_and(|first| first.ordering_key.as_deref() == key)
        };
        match key.and_then(|_| lanes.iter_mut().find(of_key)) {
            Some(lane) => lane.push(delivery),
            None => lanes.push(vec![delivery]),
        }
    }
    lanes
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
