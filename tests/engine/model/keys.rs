//! The idempotency keys that are in use, of messages and of whole requests. The same texts are used for
//! both, which must not disturb each other.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::oracle::SLACK;

/// How long a key is remembered.
pub(super) const WINDOW: i32 = 100;

pub(super) struct Request {
    pub(super) ids: Vec<Uuid>,
    pub(super) fingerprint: u64,
    at: f64,
}

#[derive(Default)]
pub(super) struct Keys {
    messages: BTreeMap<usize, (Uuid, f64)>,
    requests: BTreeMap<usize, Request>,
}

/// Too near to the end of the window to tell.
pub(super) struct Unsure;

fn is_over(at: f64, now: f64) -> Result<bool, Unsure> {
    let left = f64::from(WINDOW) - (now - at);
    if left.abs() < SLACK {
        return Err(Unsure);
    }
    Ok(left < 0.0)
}

impl Keys {
    /// The message that has a key, if one has.
    pub(super) fn message(&self, key: usize, now: f64) -> Result<Option<Uuid>, Unsure> {
        match self.messages.get(&key) {
            Some((id, at)) => Ok((!is_over(*at, now)?).then_some(*id)),
            None => Ok(None),
        }
    }

    pub(super) fn request(&self, key: usize, now: f64) -> Result<Option<&Request>, Unsure> {
        match self.requests.get(&key) {
            Some(request) => Ok((!is_over(request.at, now)?).then_some(request)),
            None => Ok(None),
        }
    }

    pub(super) fn took_message(&mut self, key: usize, id: Uuid, now: f64) {
        self.messages.insert(key, (id, now));
    }

    pub(super) fn took_request(&mut self, key: usize, ids: Vec<Uuid>, mark: u64, now: f64) {
        let request = Request {
            ids,
            fingerprint: mark,
            at: now,
        };
        self.requests.insert(key, request);
    }
}
