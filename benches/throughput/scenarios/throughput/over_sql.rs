//! The loads over SQL: our functions beside those of pgmq, call for call.

use super::loads::{Comparison, Door, INSERT_HUNDRED, INSERT_ONE, Kind, Load};

const PGMQ_ONE: &str = "pgmq.send, 1 a call over SQL, 8 clients";
const PGMQ_CONSUME: &str = "pgmq.read + delete, 1 a call over SQL, 8 clients";
const PGMQ_HUNDRED: &str = "pgmq.send_batch, 100 a call over SQL, 4 clients";
pub(super) const PGMQ_DRAIN: &str = "pgmq.read + delete, 100 a call over SQL, 4 clients";

pub(super) const LOADS: [Load; 10] = [
    Load {
        name: PGMQ_ONE,
        door: Door::Pgmq,
        kind: Kind::Publish("sql-single"),
        batch: 1,
        clients: 8,
        comparisons: &[Comparison::to(INSERT_ONE)],
    },
    Load {
        name: "publish, 1 a call over SQL, 8 clients",
        door: Door::Sql,
        kind: Kind::Publish("sql-single"),
        batch: 1,
        clients: 8,
        comparisons: &[Comparison::at_least(1.05, PGMQ_ONE)],
    },
    Load {
        name: PGMQ_CONSUME,
        door: Door::Pgmq,
        kind: Kind::Consume("sql-single"),
        batch: 1,
        clients: 8,
        comparisons: &[Comparison::to(INSERT_ONE)],
    },
    Load {
        name: "consume + ack, 1 a call over SQL, 8 clients",
        door: Door::Sql,
        kind: Kind::Consume("sql-single"),
        batch: 1,
        clients: 8,
        comparisons: &[Comparison::at_least(1.1, PGMQ_CONSUME)],
    },
    Load {
        name: PGMQ_HUNDRED,
        door: Door::Pgmq,
        kind: Kind::Publish("sql-hundred"),
        batch: 100,
        clients: 4,
        comparisons: &[Comparison::to(INSERT_HUNDRED)],
    },
    Load {
        name: "publish, 100 a call over SQL, 4 clients",
        door: Door::Sql,
        kind: Kind::Publish("sql-hundred"),
        batch: 100,
        clients: 4,
        comparisons: &[Comparison::at_least(1.1, PGMQ_HUNDRED)],
    },
    Load {
        name: "pgmq.send_batch to 10 queues, 100 a call over SQL, 4 clients",
        door: Door::Pgmq,
        kind: Kind::FanOut("sql-fan-out"),
        batch: 100,
        clients: 4,
        comparisons: &[Comparison::to(INSERT_HUNDRED)],
    },
    Load {
        name: "publish to 10 subscriptions, 100 a call over SQL, 4 clients",
        door: Door::Sql,
        kind: Kind::FanOut("sql-fan-out"),
        batch: 100,
        clients: 4,
        comparisons: &[Comparison::at_least(0.58, INSERT_HUNDRED)],
    },
    Load {
        name: PGMQ_DRAIN,
        door: Door::Pgmq,
        kind: Kind::Drain("sql-drain"),
        batch: 100,
        clients: 4,
        comparisons: &[Comparison::to(INSERT_HUNDRED)],
    },
    Load {
        name: "consume + ack, 100 a call over SQL, 4 clients",
        door: Door::Sql,
        kind: Kind::Drain("sql-drain"),
        batch: 100,
        clients: 4,
        comparisons: &[Comparison::to(PGMQ_DRAIN)],
    },
];
