//! What happened: every call of every client with its times and its answer, probes and faults. Times
//! are microseconds since the start of the run, by one monotonic clock.

use std::ops::Range;
use std::sync::Arc;

use uuid::Uuid;

pub type Micros = u64;

/// In the place of a server: what went to the database itself.
pub const PSQL: usize = usize::MAX;
/// In the place of a server: one of them, which does not say which.
pub const SOME: usize = usize::MAX - 1;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// With a 4xx: nothing was done.
    Refused(u16),
    /// With a 5xx.
    Failed {
        status: u16,
        retry_after: bool,
    },
    NoConnection,
    /// We went away before the request was whole.
    CutInRequest,
    /// We went away before the answer was.
    CutInResponse,
    /// The server went away.
    Broken,
    TimedOut,
    /// It was told, and need not answer: it may have done what it was told, or do it yet.
    Told,
}

impl Outcome {
    /// Whether the service may have done what it was asked for.
    #[must_use]
    pub fn may_have_happened(self) -> bool {
        !matches!(
            self,
            Self::Refused(_) | Self::NoConnection | Self::CutInRequest
        )
    }
}

#[derive(Clone, Debug)]
pub struct Call {
    /// Who called.
    pub client: Arc<str>,
    pub server: usize,
    /// Not later than the first byte of the request left.
    pub sent: Micros,
    /// Not earlier than the last byte of the answer came.
    pub done: Micros,
    pub outcome: Outcome,
}

/// A message as it was delivered.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: Uuid,
    /// The number in its payload, if there is one.
    pub number: Option<u64>,
    /// The last update of it, as the payload tells; 0: as it was published.
    pub revision: u64,
    /// Of its payload.
    pub digest: u64,
    pub attempts: u32,
    /// Of what was taken, a name for this delivery, which settles nothing.
    pub receipt: Arc<str>,
    /// Acked in the commit that handed it out.
    pub taken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Ack,
    Nack,
    /// No ack and no nack: from then on the service may give it back, without counting the delivery.
    GiveBack,
}

/// What an ack or nack names: a delivery by its receipt, or whoever holds the message now.
#[derive(Clone, Debug)]
pub struct Handle {
    pub id: Uuid,
    pub receipt: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
pub enum What {
    /// The messages of these numbers in this order; rubbish: with one that no service may take.
    Publish {
        topic: &'static str,
        numbers: Range<u64>,
        rubbish: bool,
    },
    Consume {
        subscription: &'static str,
        deliveries: Vec<Delivery>,
        /// A take, and of how many at most.
        takes: Option<usize>,
    },
    Settle {
        subscription: &'static str,
        verb: Verb,
        handles: Vec<Handle>,
        /// The answer said of each that it was done, whatever became of its lease.
        confirmed: bool,
    },
    Reprocess {
        subscription: &'static str,
        ids: Vec<Uuid>,
    },
    /// Ack these and publish the messages of these numbers, all or nothing.
    Transact {
        subscription: &'static str,
        handles: Vec<Handle>,
        topic: &'static str,
        numbers: Range<u64>,
    },
    Pause {
        subscription: &'static str,
        paused: bool,
    },
    Purge {
        subscription: &'static str,
    },
    /// Change the payload of a message to that of this revision, which is above those before.
    Update {
        id: Uuid,
        revision: u64,
    },
    /// Everything that the books have of a subscription.
    Inspect {
        subscription: &'static str,
        found: Vec<Entry>,
    },
    /// Anything that changes nothing.
    Read,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub call: Call,
    pub what: What,
}

/// What a probe asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Liveness,
    Readiness,
    /// A route that needs the database.
    Topics,
}

#[derive(Clone, Debug)]
pub struct Probe {
    pub door: Door,
    pub call: Call,
}

/// Every kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    KillServer,
    FreezeServer,
    KillPostgres,
    StopPostgresFast,
    StopPostgresImmediately,
    ExhaustConnections,
    FillDisk,
    PinHorizon,
    Migrate,
    CleanUpStuck,
    CleanUpAcked,
    CutInRequest,
    CutInResponse,
}

impl Kind {
    pub const ALL: [Self; 13] = [
        Self::KillServer,
        Self::FreezeServer,
        Self::KillPostgres,
        Self::StopPostgresFast,
        Self::StopPostgresImmediately,
        Self::ExhaustConnections,
        Self::FillDisk,
        Self::PinHorizon,
        Self::Migrate,
        Self::CleanUpStuck,
        Self::CleanUpAcked,
        Self::CutInRequest,
        Self::CutInResponse,
    ];

    /// Whether requests may fail while it lasts, for want of the database.
    #[must_use]
    pub fn hits_database(self) -> bool {
        matches!(
            self,
            Self::KillPostgres
                | Self::StopPostgresFast
                | Self::StopPostgresImmediately
                | Self::ExhaustConnections
                | Self::FillDisk
        )
    }
}

/// A fault while it had an effect.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// The server that it hit, if it hit one.
    pub server: Option<usize>,
    pub from: Micros,
    /// When what it broke worked again, as far as we could see from outside the service.
    pub until: Micros,
    /// When there surely was no Postgres.
    pub gone: Option<(Micros, Micros)>,
    /// Between when Postgres ended without a shutdown, if it did.
    pub crashed: Option<(Micros, Micros)>,
}

impl Fault {
    #[must_use]
    pub fn overlaps(&self, from: Micros, until: Micros) -> bool {
        self.from <= until && self.until >= from
    }
}

/// Everything that happened in a run.
#[derive(Debug, Default)]
pub struct History {
    pub seed: u64,
    pub events: Vec<Event>,
    pub probes: Vec<Probe>,
    pub faults: Vec<Fault>,
    /// What no call shows, such as a server that ended by itself.
    pub mishaps: Vec<String>,
}

/// Where a message ended in a subscription, or that it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Acked,
    Dead,
    Unsettled,
}

/// A message of a subscription in the books of the database.
#[derive(Clone, Debug)]
pub struct Entry {
    pub subscription: &'static str,
    pub id: Uuid,
    /// The number in its payload, where the books still have the payload.
    pub number: Option<u64>,
    pub state: State,
    pub attempts: u32,
}
