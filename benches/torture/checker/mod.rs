//! Proves a run from its history and the books of the database. Pure: no clock, no input or output.
//!
//! Every bound is conservative: a lease counts as held only while it surely was, a request as refused
//! only if it surely was, so that a violation is one whatever the network and the clocks did.

mod books;
mod index;
mod keys;
mod leases;
mod limits;
mod messages;
mod order;
mod pauses;
mod purges;
mod pushes;
mod service;
mod takes;
mod transactions;
mod updates;

pub use service::longest_recovery;

use super::history::{Entry, History};
use super::story::About;
use index::Index;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise, in a word or two.
    pub promise: &'static str,
    pub text: String,
    pub about: About,
}

/// Every violation of a run that has come to its end.
#[must_use]
pub fn check(history: &History, books: &[Entry]) -> Vec<Violation> {
    let index = Index::new(history);
    let mut violations = messages::check(history, &index);
    violations.extend(books::check(history, &index, books));
    violations.extend(leases::check(&index));
    violations.extend(order::check(history, &index));
    violations.extend(keys::check(history, &index));
    violations.extend(limits::check(&index));
    violations.extend(transactions::check(history, &index, books));
    violations.extend(takes::check(&index));
    violations.extend(purges::check(history, &index));
    violations.extend(updates::check(&index));
    violations.extend(pauses::check(history));
    violations.extend(pushes::check(history, &index));
    violations.extend(service::check(history));
    violations
}
