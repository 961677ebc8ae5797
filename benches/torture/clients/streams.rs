//! What clients of streams have in common: one reads all the time and tells when what came, the other works.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::DateTime;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::super::history::{Handle, Micros, Outcome, Verb, What};
use super::super::world::Subscription;
use super::Session;
use super::consumers::delivery;

/// No stream is silent for longer, not even one that nothing comes on.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// Longer than a claim takes, from the look at what there is to the reckoning of its deadline.
const CLAIM: Micros = 1_000_000;
/// An end was not longer ago when it is noticed.
const NOTICE: Micros = 1_000_000;
/// How long to wait for something to do.
const WAIT: Duration = Duration::from_millis(200);

/// What came on a stream.
pub(super) enum Heard {
    Message(Value),
    /// What became of something that the client said.
    Reply(Value),
    End(Outcome),
}

pub(super) type Tell = UnboundedSender<(Micros, Heard)>;

/// What came lately.
#[derive(Default)]
pub(super) struct Came {
    pub(super) messages: Vec<Handle>,
    pub(super) replies: Vec<(Micros, Value)>,
    pub(super) end: Option<(Micros, Outcome)>,
}

/// An open stream.
pub(super) struct Stream {
    subscription: &'static Subscription,
    server: usize,
    heard: UnboundedReceiver<(Micros, Heard)>,
    reading: JoinHandle<()>,
    /// What was sent and is not surely settled, by receipt.
    held: HashMap<Arc<str>, Handle>,
}

impl Stream {
    /// Of what reads it and tells what it heard.
    pub(super) fn new<F>(
        subscription: &'static Subscription,
        server: usize,
        read: impl FnOnce(Tell) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tell, heard) = unbounded_channel();
        Self {
            subscription,
            server,
            heard,
            reading: tokio::spawn(read(tell)),
            held: HashMap::new(),
        }
    }

    pub(super) fn server(&self) -> usize {
        self.server
    }

    /// Wait a little for something to come, and take all there is.
    pub(super) async fn next(&mut self, session: &mut Session) -> Came {
        let mut came = Came::default();
        if let Ok(Some((at, heard))) = tokio::time::timeout(WAIT, self.heard.recv()).await {
            self.note(session, &mut came, at, heard);
        }
        self.take(session, &mut came);
        came
    }

    fn take(&mut self, session: &mut Session, came: &mut Came) {
        while let Ok((at, heard)) = self.heard.try_recv() {
            self.note(session, came, at, heard);
        }
    }

    fn note(&mut self, session: &mut Session, came: &mut Came, at: Micros, heard: Heard) {
        match heard {
            Heard::Message(message) => came.messages.push(self.delivered(session, at, &message)),
            Heard::Reply(reply) => came.replies.push((at, reply)),
            Heard::End(outcome) => came.end = Some((at, outcome)),
        }
    }

    fn delivered(&mut self, session: &mut Session, at: Micros, message: &Value) -> Handle {
        let deadline = message["ack_deadline"].as_str().unwrap();
        let deadline = DateTime::parse_from_rfc3339(deadline).unwrap();
        let deadline = session.stage.clock.of(deadline.into());
        let claimed = deadline.saturating_sub(self.subscription.lease_micros() + CLAIM);
        let delivery = delivery(message);
        let handle = Handle {
            id: delivery.id,
            receipt: Some(Arc::clone(&delivery.receipt)),
        };
        self.held
            .insert(Arc::clone(&delivery.receipt), handle.clone());
        let what = What::Consume {
            subscription: self.subscription.id,
            deliveries: vec![delivery],
            takes: None,
        };
        let tally = &session.stage.tally;
        tally.delivered.fetch_add(1, Ordering::Relaxed);
        session.note(self.server, (claimed.min(at), at), Outcome::Done, what);
        handle
    }

    /// It holds this no more.
    pub(super) fn let_go(&mut self, receipt: &str) {
        self.held.remove(receipt);
    }

    /// Go away; what came before that.
    pub(super) async fn leave(mut self, session: &mut Session) -> Came {
        let mut came = Came::default();
        let at = session.stage.clock.now();
        self.reading.abort();
        let _aborted = (&mut self.reading).await;
        self.take(session, &mut came);
        let (at, outcome) = came.end.unwrap_or((at, Outcome::CutInResponse));
        self.ended(session, at, outcome);
        came
    }

    /// It has ended: what it held may be given back, and what was on its way to us, too.
    pub(super) fn ended(self, session: &mut Session, at: Micros, outcome: Outcome) {
        let times = (at.saturating_sub(NOTICE), session.stage.clock.now());
        let lost = What::Consume {
            subscription: self.subscription.id,
            deliveries: Vec::new(),
            takes: None,
        };
        session.note(self.server, times, outcome, lost);
        let given_back = What::Settle {
            subscription: self.subscription.id,
            verb: Verb::GiveBack,
            handles: self.held.into_values().collect(),
            confirmed: false,
        };
        session.note(self.server, times, Outcome::Told, given_back);
    }
}

/// What to do with each message: most are acked, in the end all.
pub(super) fn choose(session: &mut Session) -> Option<Verb> {
    if !session.is_running() {
        return Some(Verb::Ack);
    }
    if session.one_in(30) {
        None
    } else if session.one_in(15) {
        Some(Verb::Nack)
    } else {
        Some(Verb::Ack)
    }
}
