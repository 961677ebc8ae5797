//! Takes the messages of all topics for the connections of this process: by a subscription of its own, which
//! vanishes with the last connection, or a minute after the process died. Whatever fails in between ends it, and
//! every connection with it: none goes on as if nothing had been missed.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;

use super::hub::{Began, Hub, subscription_id};
use super::names::TOPIC;
use super::start;
use crate::app::App;
use crate::db;
use crate::db::messages::{Claim, Only};
use crate::db::subscriptions::{NewSettings, NewSubscription};
use crate::doors::connection::Guest;
use crate::error::{Error, found};

/// Most messages that are taken at a time.
const BATCH: i32 = 1000;
const WAIT: Duration = Duration::from_secs(30);
/// After how long without this process its subscription vanishes.
const EXPIRES_AFTER_SECONDS: i32 = 60;
/// How long a taker waits for the next connection, once the last one has left.
const LINGER: Duration = Duration::from_secs(5);
/// After the budget of answers was used up by others.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// How long those who publish while the subscription is made are waited for.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// A claim that takes so long reads over what a long transaction keeps from being cleaned up.
const SLOW: Duration = Duration::from_millis(100);
const SLOW_FOR: Duration = Duration::from_secs(60);

/// What takes, until nobody is there, the server ends, or something fails.
pub(super) struct Taker {
    pub(super) app: App,
    pub(super) hub: Arc<Hub>,
    /// Which of its hub.
    pub(super) number: u64,
    pub(super) began: watch::Sender<Began>,
    pub(super) guest: Guest,
}

impl Taker {
    pub(super) async fn run(self) {
        let id = subscription_id();
        let ended = self.work(&id).await;
        if let Err(error) = ended {
            tracing::warn!(%error, "connections of the Pulsar door end: messages may have been missed");
            self.began.send_replace(Began::Failed(error));
            self.hub.end(self.number, false);
        }
        // else nobody is there, or the server ends, which connections hear of themselves
        // if that fails, it vanishes by itself
        if let Err(error) = db::subscriptions::delete(&self.app.database, &id).await {
            tracing::debug!(%error, "a subscription of the Pulsar door is left to vanish");
        }
    }

    async fn work(&self, id: &str) -> Result<(), Error> {
        let drained = pin!(self.guest.drained());
        let begin_and_take = async {
            begin(&self.app, id).await?;
            let _kept = self.app.engine.attend(vec![id.to_owned()]);
            self.began.send_replace(Began::Yes);
            tokio::select! {
                error = self.take(id) => Err(error),
                () = self.until_nobody_is_there() => Ok(()),
            }
        };
        tokio::select! {
            ended = begin_and_take => ended,
            () = drained => Ok(()),
        }
    }

    /// Hand over what is accepted, until something fails.
    async fn take(&self, id: &str) -> Error {
        let mut pace = Pace::default();
        loop {
            let claim = Claim {
                consumer_id: TOPIC.to_owned(),
                batch_size: BATCH,
                ack_deadline_seconds: None,
                only: pace.only(),
                auto_ack: true,
            };
            let allowed = || {
                pace.begin();
                async { Ok(()) }
            };
            pace.begin();
            let pulled = self.app.engine.pull(id.to_owned(), claim, WAIT, allowed);
            match pulled.await {
                Ok(claimed) if claimed.deliveries.is_empty() => {}
                Ok(claimed) => {
                    pace.end();
                    self.hub.deliver(claimed.deliveries);
                    // on their way, with bounds of their own
                    drop(claimed.share);
                }
                // nothing was taken
                Err(Error::Busy(_)) => sleep(BUSY_PAUSE).await,
                // what it took, if it took anything, is gone
                Err(error) => return error,
            }
        }
    }

    async fn until_nobody_is_there(&self) {
        loop {
            self.hub.moved().await;
            while self.hub.is_empty() {
                let came = tokio::time::timeout(LINGER, self.hub.moved()).await;
                if came.is_err() && self.hub.end(self.number, true) {
                    return;
                }
            }
        }
    }
}

/// Make the subscription: what is accepted afterwards is in it.
async fn begin(app: &App, id: &str) -> Result<(), Error> {
    let settings = json!({"expires_after_seconds": EXPIRES_AFTER_SECONDS});
    let others = settings.as_object().cloned().unwrap_or_default();
    let new = NewSubscription {
        id: id.to_owned(),
        topic_id: TOPIC.to_owned(),
        settings: NewSettings {
            filter: None,
            others,
        },
        start_from: None,
    };
    if found(db::subscriptions::create(&app.database, &new).await)?.is_none() {
        start::create_topic(app).await?;
        db::subscriptions::create(&app.database, &new).await?;
    }
    // a publish that was under way may not have seen it
    let before = db::publish::open(&app.database).await?;
    let mut open = before.clone();
    let begun = Instant::now();
    while open.iter().any(|one| before.contains(one)) {
        if begun.elapsed() > SETTLED_WITHIN {
            tracing::warn!(
                "a transaction that publishes is open for long: the Pulsar door may miss its messages"
            );
            break;
        }
        sleep(LOOK_AGAIN).await;
        open = db::publish::open(&app.database).await?;
    }
    Ok(())
}

/// Which claims are made. Those of what is new read from the oldest message that was not taken, and so never pass
/// one that was committed late: what was accepted first comes first. Where they become slow, ordinary ones have to
/// do for a while, which go on where the last one stopped and look back only now and then.
#[derive(Default)]
struct Pace(Mutex<(Option<Instant>, Option<Instant>)>);

impl Pace {
    fn only(&self) -> Option<Only> {
        let (_, slow_until) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_slow = slow_until.is_some_and(|until| Instant::now() < until);
        (!is_slow).then_some(Only::New)
    }

    /// A claim begins.
    fn begin(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(Instant::now());
    }

    /// It took messages.
    fn end(&mut self) {
        let (begun, slow_until) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if begun.is_some_and(|begun| begun.elapsed() > SLOW) {
            *slow_until = Some(Instant::now() + SLOW_FOR);
        }
    }
}
