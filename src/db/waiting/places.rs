//! What is known of each subscription that somebody waits for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::watch::Look;

/// What is known is kept so long after the last one left: most come back at once.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// When there was something to claim and nobody got it, such as for a limit: the first and the longest
/// wait until the next try.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// A subscription that somebody waits for, or did just now.
struct Place {
    bell: Arc<Notify>,
    waiting: usize,
    /// Since when nobody waits.
    left_at: Instant,
    /// Counts what happened.
    news: u64,
    /// A claim found nothing since the last of it.
    quiet: bool,
    /// The last look found something.
    looked_ready: bool,
    retry: Duration,
    /// When to ring without another look.
    ring_at: Option<Instant>,
    /// When to look again.
    look_at: Option<Instant>,
    topic_id: Option<String>,
    frees: bool,
    by_consumer: bool,
    seen: Option<Uuid>,
    last_seen: Option<Uuid>,
    rewinds: Option<i32>,
}

impl Place {
    fn ring(&mut self, messages: usize) {
        self.news += 1;
        self.quiet = false;
        if self.by_consumer {
            // what the first is refused, the last may get
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

/// What a look goes by.
#[derive(Default)]
pub(super) struct Watched {
    pub(super) subscription_ids: Vec<String>,
    pub(super) seen: Vec<Option<Uuid>>,
    pub(super) rewinds: Vec<Option<i32>>,
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

    pub(super) fn enter(&mut self, subscription_id: &str) -> Entered {
        let starts_watch = !std::mem::replace(&mut self.watched, true);
        if let Some(place) = self.places.get_mut(subscription_id) {
            place.waiting += 1;
            return Entered {
                bell: Arc::clone(&place.bell),
                is_new: false,
                starts_watch,
            };
        }
        let bell = Arc::new(Notify::new());
        let place = Place {
            bell: Arc::clone(&bell),
            waiting: 1,
            left_at: Instant::now(),
            news: 0,
            quiet: false,
            looked_ready: false,
            retry: FIRST_RETRY,
            ring_at: None,
            look_at: None,
            topic_id: None,
            frees: false,
            by_consumer: false,
            seen: None,
            last_seen: None,
            rewinds: None,
        };
        self.places.insert(subscription_id.to_owned(), place);
        Entered {
            bell,
            is_new: true,
            starts_watch,
        }
    }

    pub(super) fn leave(&mut self, subscription_id: &str) {
        if let Some(place) = self.places.get_mut(subscription_id) {
            place.waiting -= 1;
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
            .is_some_and(|place| place.quiet)
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

    /// A claim that began with these news.
    pub(super) fn found_nothing(&mut self, subscription_id: &str, news: u64) {
        let Some(place) = self.places.get_mut(subscription_id) else {
            return;
        };
        if place.news != news {
            return;
        }
        place.quiet = true;
        if std::mem::take(&mut place.looked_ready) {
            place.seen = place.last_seen;
            place.ring_at = Some(Instant::now() + place.retry);
            place.retry = LONGEST_RETRY.min(place.retry * 2);
        }
    }

    /// A claim failed.
    pub(super) fn try_later(&mut self, subscription_id: &str) {
        if let Some(place) = self.places.get_mut(subscription_id) {
            place.quiet = false;
            place.ring_at = Some(Instant::now() + LONGEST_RETRY);
        }
    }

    /// When something is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let due = |place: &Place| [place.ring_at, place.look_at];
        let waited_for = self.places.values().filter(|place| place.waiting > 0);
        waited_for.flat_map(due).flatten().min()
    }

    /// Ring where that is due; whether a look is due, too.
    pub(super) fn ring_due(&mut self) -> bool {
        let now = Instant::now();
        let mut look = false;
        for place in self.places.values_mut() {
            if place.ring_at.is_some_and(|at| at <= now) {
                place.ring_at = None;
                // a claim is the look
                place.looked_ready = true;
                place.ring(1);
            }
            look |= place.look_at.is_some_and(|at| at <= now);
        }
        look
    }

    /// What to look at; none when nobody has waited for a while, which ends the watch.
    pub(super) fn watched(&mut self) -> Option<Watched> {
        let now = Instant::now();
        self.places
            .retain(|_, place| place.waiting > 0 || now < place.left_at + KEPT_FOR);
        if self.places.is_empty() {
            self.watched = false;
            return None;
        }
        let mut watched = Watched::default();
        for (subscription_id, place) in &mut self.places {
            place.look_at = None;
            watched.subscription_ids.push(subscription_id.clone());
            watched.seen.push(place.seen);
            watched.rewinds.push(place.rewinds);
        }
        Some(watched)
    }

    /// What a look found.
    pub(super) fn update(&mut self, looks: Vec<Look>) {
        let now = Instant::now();
        for look in looks {
            let Some(place) = self.places.get_mut(&look.subscription_id) else {
                continue;
            };
            place.topic_id = look.topic_id;
            place.frees = look.frees;
            place.by_consumer = look.by_consumer;
            place.last_seen = look.last_seen;
            place.rewinds = look.rewinds;
            place.look_at = look
                .due_in_seconds
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .and_then(|wait| now.checked_add(wait));
            place.looked_ready = look.is_ready;
            if look.is_ready {
                place.ring(1);
            } else {
                place.seen = look.last_seen;
            }
        }
    }
}
