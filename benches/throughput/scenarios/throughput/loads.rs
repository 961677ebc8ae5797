//! The loads: what clients do, how many they are, and what their rate is compared to.

use super::over_sql;
use crate::flags::Flags;

/// The references: what a message costs that is only stored.
pub(super) const INSERT_ONE: &str = "plain INSERT, 1 a statement, 8 clients";
pub(super) const INSERT_HUNDRED: &str = "plain INSERT, 100 a statement, 4 clients";

/// Consume + ack one by one of the Python original, in messages a second on two cores.
const ORIGINAL: f64 = 213.0;

/// How clients reach what they use.
#[derive(Clone, Copy, PartialEq)]
pub(in super::super) enum Door {
    /// Requests to our server.
    Http,
    /// Statements.
    Sql,
    /// Statements that call pgmq.
    Pgmq,
}

/// What the clients do, to a topic and its subscription, or to a queue, of this name.
#[derive(Clone, Copy, PartialEq)]
pub(in super::super) enum Kind {
    Insert,
    Publish(&'static str),
    /// To ten.
    FanOut(&'static str),
    /// From a backlog that does not run out.
    Consume(&'static str),
    /// A backlog, to its end.
    Drain(&'static str),
    /// The same with one request a batch, which settles the one before.
    SettleAndPull(&'static str),
}

/// What a rate should be at least.
pub(super) enum Bar {
    /// Times the reference.
    Times(f64),
    /// Messages a second.
    Rate(f64),
}

pub(super) struct Comparison {
    /// The name of a load.
    pub(super) reference: &'static str,
    pub(super) bar: Option<Bar>,
}

impl Comparison {
    pub(super) const fn to(reference: &'static str) -> Self {
        Self {
            reference,
            bar: None,
        }
    }

    pub(super) const fn at_least(times: f64, reference: &'static str) -> Self {
        Self {
            reference,
            bar: Some(Bar::Times(times)),
        }
    }
}

pub(in super::super) struct Load {
    pub(in super::super) name: &'static str,
    pub(in super::super) door: Door,
    pub(in super::super) kind: Kind,
    pub(super) batch: usize,
    pub(super) clients: usize,
    /// The first is told in the row of the load, each other in a row of its own.
    pub(super) comparisons: &'static [Comparison],
}

const LOADS: [Load; 8] = [
    Load {
        name: INSERT_ONE,
        door: Door::Sql,
        kind: Kind::Insert,
        batch: 1,
        clients: 8,
        comparisons: &[Comparison::to(INSERT_ONE)],
    },
    Load {
        name: "publish, 1 a request, 64 connections",
        door: Door::Http,
        kind: Kind::Publish("single"),
        batch: 1,
        clients: 64,
        comparisons: &[Comparison::at_least(1.0, INSERT_ONE)],
    },
    Load {
        name: "consume + ack, 1 a request, 32 consumers",
        door: Door::Http,
        kind: Kind::Consume("single"),
        batch: 1,
        clients: 32,
        comparisons: &[Comparison {
            reference: INSERT_ONE,
            bar: Some(Bar::Rate(25.0 * ORIGINAL)),
        }],
    },
    Load {
        name: INSERT_HUNDRED,
        door: Door::Sql,
        kind: Kind::Insert,
        batch: 100,
        clients: 4,
        comparisons: &[Comparison::to(INSERT_HUNDRED)],
    },
    Load {
        name: "publish, 100 a request, 8 connections",
        door: Door::Http,
        kind: Kind::Publish("hundred"),
        batch: 100,
        clients: 8,
        comparisons: &[Comparison::at_least(0.45, INSERT_HUNDRED)],
    },
    Load {
        name: "publish, 100 a request, 10 subscriptions",
        door: Door::Http,
        kind: Kind::FanOut("fan-out"),
        batch: 100,
        clients: 8,
        comparisons: &[Comparison::at_least(0.2, INSERT_HUNDRED)],
    },
    Load {
        name: "consume + ack, 100 a request, 4 consumers",
        door: Door::Http,
        kind: Kind::Drain("drain"),
        batch: 100,
        clients: 4,
        comparisons: &[Comparison::at_least(0.3, INSERT_HUNDRED)],
    },
    Load {
        name: "settle + pull at once, 100 a request, 4 consumers",
        door: Door::Http,
        kind: Kind::SettleAndPull("drain"),
        batch: 100,
        clients: 4,
        comparisons: &[
            Comparison::at_least(0.35, INSERT_HUNDRED),
            Comparison::at_least(1.8, over_sql::PGMQ_DRAIN),
        ],
    },
];

/// All of them, in the order in which they run.
pub(in super::super) fn all() -> impl Iterator<Item = &'static Load> {
    LOADS.iter().chain(&over_sql::LOADS)
}

/// Whether one of the loads is wanted.
pub(in super::super) fn wanted(flags: &Flags) -> bool {
    all().any(|load| flags.want(load.name))
}

/// Whether a load of a scenario is: all of them, unless some are named.
pub(in super::super) fn chosen(flags: &Flags, load: &Load) -> bool {
    !wanted(flags) || flags.want(load.name)
}

/// Whether a load runs: it is chosen, or the reference of one that is.
pub(super) fn runs(flags: &Flags, load: &Load) -> bool {
    all().filter(|other| chosen(flags, other)).any(|other| {
        let compared = &mut other.comparisons.iter();
        other.name == load.name || compared.any(|to| to.reference == load.name)
    })
}
