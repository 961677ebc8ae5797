//! What is known of each subscription that somebody waits for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::db::waiting::{Look, Watched};

/// What is known is kept so long after the last one left: most come back at once.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// How long nobody claims after a claim that found nothing, unless there is news. News come at once;
/// this is for what a clock that was set back might hide.
const QUIET_FOR: Duration = Duration::from_secs(30);
/// When there was something to claim and nobody got it: the first and the longest wait until the next
/// try. Each is an eighth longer than the one before, because it may take some twenty claims to come by
/// what a publisher committed late. What a limit withholds is then tried once a second.
const FIRST_RETRY: Duration = Duration::from_millis(40);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// How many times in its time a subscription is kept that expires and is waited for or attended.
const KEPT_A_TIME: u32 = 4;

/// A subscription that somebody waits for, or did just now.
struct Place {
    bell: Arc<Notify>,
    waiting: usize,
    /// Of those who wait, how many do not want whatever is ready.
    choosy: usize,
    /// Consumers that are there, whether or not they wait.
    attending: usize,
    /// Since when nobody waits or is there.
    left_at: Instant,
    /// Counts what happened.
    news: u64,
    /// A claim found nothing since the last of it: until then nobody needs to claim.
    quiet_until: Option<Instant>,
    /// The last look found something, which a claim has yet to get.
    looked_ready: bool,
    /// When nobody got it: until then nobody tries, unless there is something else.
    held_until: Option<Instant>,
    retry: Duration,
    /// When to look again.
    look_at: Option<Instant>,
    topic_id: Option<String>,
    frees: bool,
    by_consumer: bool,
    after: Option<Uuid>,
    newest: Option<Uuid>,
    due_at: Option<DateTime<Utc>>,
    rewinds: Option<i32>,
    /// When to keep it next, if it expires.
    keep_at: Option<Instant>,
    keep_every: Duration,
}

impl Place {
    fn new() -> Self {
        Self {
            bell: Arc::new(Notify::new()),
            waiting: 0,
            choosy: 0,
            attending: 0,
            left_at: Instant::now(),
            news: 0,
            quiet_until: None,
            looked_ready: false,
            held_until: None,
            retry: FIRST_RETRY,
            look_at: None,
            topic_id: None,
            frees: false,
            by_consumer: false,
            after: None,
            newest: None,
            due_at: None,
            rewinds: None,
            keep_at: None,
            keep_every: Duration::ZERO,
        }
    }

    /// Whether somebody waits or is there.
    fn is_attended(&self) -> bool {
        self.waiting > 0 || self.attending > 0
    }

    fn ring(&mut self, messages: usize) {
        self.news += 1;
        self.quiet_until = None;
        if self.by_consumer || self.choosy > 0 {
            // what the first is refused or passes over, the last may get
            self.bell.notify_waiters();
            return;
        }
        for _ in 0..messages.min(self.waiting) {
            self.bell.notify_one();
        }
    }
}

/// What a waiter needs to know.
pub(super) struct Entered {
    pub(super) bell: Arc<Notify>,
    /// Nothing is known of the subscription yet.
    pub(super) is_new: bool,
    /// Nobody watches.
    pub(super) starts_watch: bool,
}

/// All of them.
#[derive(Default)]
pub(super) struct Places {
    places: HashMap<String, Place>,
    watched: bool,
}

impl Places {
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn enter(&mut self, subscription_id: &str, is_choosy: bool) -> Entered {
        self.come(subscription_id, |place| {
            place.waiting += 1;
            place.choosy += usize::from(is_choosy);
        })
    }

    /// A consumer is there, which may not always wait: it keeps the subscription all the same.
    pub(super) fn attend(&mut self, subscription_id: &str) -> Entered {
        self.come(subscription_id, |place| place.attending += 1)
    }

    fn come(&mut self, subscription_id: &str, note: impl FnOnce(&mut Place)) -> Entered {
        let starts_watch = !std::mem::replace(&mut self.watched, true);
        let is_new = !self.places.contains_key(subscription_id);
        let place = self.places.entry(subscription_id.to_owned());
        let place = place.or_insert_with(Place::new);
        note(place);
        Entered {
            bell: Arc::clone(&place.bell),
            is_new,
            starts_watch,
        }
    }

    pub(super) fn leave(&mut self, subscription_id: &str, is_choosy: bool) {
        if let Some(place) = self.places.get_mut(subscription_id) {
            place.waiting -= 1;
            place.choosy -= usize::from(is_choosy);
            place.left_at = Instant::now();
        }
    }

    /// A consumer that was there is not any more.
    pub(super) fn depart(&mut self, subscription_id: &str) {
        if let Some(place) = self.places.get_mut(subscription_id) {
            place.attending -= 1;
            place.left_at = Instant::now();
        }
    }

    pub(super) fn news(&self, subscription_id: &str) -> u64 {
        self.places
            .get(subscription_id)
            .map_or(0, |place| place.news)
    }

    pub(super) fn nothing_new(&self, subscription_id: &str) -> bool {
        self.places
            .get(subscription_id)
            .and_then(|place| place.quiet_until)
            .is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn ring(&mut self, subscription_id: &str, messages: usize) {
        if let Some(place) = self.places.get_mut(subscription_id) {
            place.ring(messages);
        }
    }

    /// Those of the topic, and those of which it is not known yet.
    pub(super) fn ring_topic(&mut self, topic_id: &str, messages: usize) {
        let of_topic = |place: &&mut Place| {
            place
                .topic_id
                .as_ref()
                .is_none_or(|of_place| of_place == topic_id)
        };
        for place in self.places.values_mut().filter(of_topic) {
            place.ring(messages);
        }
    }

    pub(super) fn ring_for_room(&mut self, subscription_id: &str, messages: usize) {
        if let Some(place) = self.places.get_mut(subscription_id)
            && place.frees
        {
            place.ring(messages);
        }
    }

    pub(super) fn found(&mut self, subscription_id: &str) {
        if let Some(place) = self.places.get_mut(subscription_id) {
            place.retry = FIRST_RETRY;
        }
    }

    /// A claim that began with these news. One that is choosy says nothing of what others would find.
    pub(super) fn found_nothing(&mut self, subscription_id: &str, news: u64, is_choosy: bool) {
        let Some(place) = self.places.get_mut(subscription_id) else {
            return;
        };
        if place.news != news {
            return;
        }
        let now = Instant::now();
        if !is_choosy {
            place.quiet_until = Some(now + QUIET_FOR);
        }
        if std::mem::take(&mut place.looked_ready) {
            place.held_until = Some(now + place.retry);
            place.look_at = place.held_until;
            place.retry = LONGEST_RETRY.min(place.retry * 9 / 8);
        }
    }

    /// A claim failed.
    pub(super) fn try_later(&mut self, subscription_id: &str) {
        if let Some(place) = self.places.get_mut(subscription_id) {
            place.quiet_until = None;
            place.look_at = Some(Instant::now() + LONGEST_RETRY);
        }
    }

    /// When to look again.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let waited_for = self.places.values().filter(|place| place.waiting > 0);
        waited_for.filter_map(|place| place.look_at).min()
    }

    /// Whether nobody has waited or been there for a while, which ends the watch.
    pub(super) fn ends_watch(&mut self) -> bool {
        let now = Instant::now();
        self.places
            .retain(|_, place| place.is_attended() || now < place.left_at + KEPT_FOR);
        if self.places.is_empty() {
            self.watched = false;
        }
        !self.watched
    }

    /// What to look at now.
    pub(super) fn watched(&mut self) -> Watched {
        let mut watched = Watched::default();
        for (subscription_id, place) in &mut self.places {
            place.look_at = None;
            watched.subscription_ids.push(subscription_id.clone());
            watched.after.push(place.after);
            watched.rewinds.push(place.rewinds);
        }
        watched
    }

    /// Those that expire, are waited for or attended, and are to be kept now.
    pub(super) fn take_due(&mut self) -> Vec<String> {
        let now = Instant::now();
        let mut due = Vec::new();
        for (subscription_id, place) in &mut self.places {
            if place.is_attended() && place.keep_at.is_some_and(|at| at <= now) {
                place.keep_at = Some(now + place.keep_every);
                due.push(subscription_id.clone());
            }
        }
        due
    }

    /// What a look found.
    pub(super) fn update(&mut self, looks: Vec<Look>) {
        let now = Instant::now();
        for look in looks {
            let Some(place) = self.places.get_mut(&look.subscription_id) else {
                continue;
            };
            let is_other = (look.newest, look.due_at) != (place.newest, place.due_at);
            place.topic_id = look.topic_id;
            place.frees = look.frees;
            place.by_consumer = look.by_consumer;
            place.keep_every = look
                .expires_after_seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map(Duration::from_secs)
                .unwrap_or_default()
                / KEPT_A_TIME;
            place.keep_at = look.expires_after_seconds.map(|_| {
                let next = now + place.keep_every;
                place.keep_at.map_or(next, |at| at.min(next))
            });
            place.newest = look.newest;
            place.due_at = look.due_at;
            place.look_at = look
                .due_in_seconds
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .and_then(|wait| now.checked_add(wait));
            if !look.is_ready {
                place.after = look.next_after;
                place.rewinds = look.rewinds;
                place.looked_ready = false;
                place.held_until = None;
                place.retry = FIRST_RETRY;
            } else if let Some(until) = place.held_until.filter(|until| now < *until && !is_other) {
                place.look_at = Some(until);
            } else {
                place.looked_ready = true;
                place.ring(1);
            }
        }
    }
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
