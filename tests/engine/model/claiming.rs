//! Consumers: alone or several in one call, which lease or take, what is ready or only what they have not seen,
//! in transactions that stay open or roll back.

use rand::RngExt;

use super::calls::{claim, is_locked};
use super::modes::Manner;
use super::rules::{Claim, Delivery, Only, Terms};
use super::{ACK_DEADLINE, CONSUMERS, Open, World};
use crate::engine::execute;

/// So many claims in a row may look for what is overdue.
const TURNS: usize = 300;

impl World {
    pub(super) async fn claim(&mut self) {
        let consumer = self.random.random_range(0..CONSUMERS);
        if self.open[consumer].is_some() {
            self.end_claim(consumer).await;
            return;
        }
        let mut consumers = vec![consumer];
        if self.random.random_bool(0.2) {
            consumers.push(self.random.random_range(0..CONSUMERS));
        }
        // where claims are small, others have to wait
        let most = if self.oracle.mode.manner == Manner::Fair {
            8
        } else {
            20
        };
        let limits: Vec<i32> = consumers
            .iter()
            .map(|_| self.random.random_range(1..most))
            .collect();
        let terms = self.terms();
        let stays_open = self.random.random_bool(0.15);
        // one claim processes a bounded number of wake-ups, and looks back for a bounded time
        for turn in 1..=TURNS {
            let claimed = self.claim_for(&consumers, &limits, terms, stays_open);
            // one that passes over something says itself what it must find
            if !claimed.await.is_empty() || terms.only.is_some() {
                return;
            }
            let now = self.clock.now();
            let others_are_open = self.open.iter().any(Option::is_some);
            if others_are_open || !self.oracle.has_room(consumer, &self.tally, now) {
                return;
            }
            let Some(overdue) = self.oracle.overdue(now) else {
                return;
            };
            let entry = &self.oracle.entries[&overdue];
            assert!(
                turn < TURNS,
                "{overdue} is not handed out: {entry:?} at {now}"
            );
            // what a later message of its key held up is looked at again after a second
            if turn % 10 == 0 {
                self.advance(1.0).await;
            }
        }
    }

    fn terms(&mut self) -> Terms {
        let passes_over = matches!(self.oracle.mode.manner, Manner::Plain | Manner::Priorities);
        let random = &mut self.random;
        let takes = random.random_bool(0.2);
        Terms {
            deadline: (!takes && random.random_bool(0.2)).then_some(20),
            takes,
            only: match random.random_range(0..8) {
                0 if passes_over => Some(Only::New),
                1 if passes_over => Some(Only::Unseen),
                _ => None,
            },
        }
    }

    pub(super) async fn claim_for(
        &mut self,
        consumers: &[usize],
        limits: &[i32],
        terms: Terms,
        stays_open: bool,
    ) -> Vec<Delivery> {
        let consumer = consumers[0];
        let others_are_open = self.open.iter().any(Option::is_some);
        let head = self.head.filter(|_| self.random.random_bool(0.5));
        let connection = &mut self.consumers[consumer];
        if stays_open {
            execute(connection, "begin").await;
        }
        let sent = self.clock.now();
        let answer = claim(connection, consumers, limits, terms, head).await;
        self.operations += 1;
        // claims within limits wait for each other, others for nobody
        assert_eq!(
            is_locked(&answer),
            self.oracle.mode.limited && others_are_open,
            "{answer:?}"
        );
        if is_locked(&answer) {
            if stays_open {
                execute(connection, "rollback").await;
            }
            return Vec::new();
        }
        let deliveries = answer.unwrap();
        let now = self.clock.now();
        let claim = Claim {
            consumers,
            limits,
            terms,
            deliveries: &deliveries,
            sent,
            deadline: terms.deadline.map_or(ACK_DEADLINE, f64::from),
        };
        let before = self.oracle.delivered(&claim, &mut self.tally, now);
        self.operations += deliveries.len();
        if !others_are_open {
            self.oracle.check_found(&claim, now);
        }
        if stays_open {
            self.oracle.hide_runs(&before);
            let takes = terms.takes;
            self.open[consumer] = Some(Open { before, takes });
            return deliveries;
        }
        if terms.takes {
            self.oracle.taken(&before);
        }
        if let Some(last) = deliveries.last() {
            self.head = last.head.zip(last.rewinds);
        }
        deliveries
    }

    /// Commit or roll back what a consumer has open.
    pub(super) async fn end_claim(&mut self, consumer: usize) {
        let Some(open) = self.open[consumer].take() else {
            return;
        };
        let connection = &mut self.consumers[consumer];
        if self.random.random_bool(0.6) {
            execute(connection, "commit").await;
            if open.takes {
                self.oracle.taken(&open.before);
            }
        } else {
            execute(connection, "rollback").await;
            self.oracle.undone(open.before, &mut self.tally);
        }
    }

    pub(super) async fn end_claims(&mut self) {
        for consumer in 0..CONSUMERS {
            self.end_claim(consumer).await;
        }
    }
}
