//! What waits for one connection, which is bounded: who does not take what it subscribed to is given up, and
//! nobody waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::message::{Message, bytes_on_their_way};

/// How far behind a connection may be.
pub(super) const MOST_MESSAGES: usize = 1000;
pub(super) const MOST_BYTES: usize = 16 * 1024 * 1024;
/// The same, once the messages of all connections have so many bytes.
const MOST_BYTES_OF_ALL: usize = 256 * 1024 * 1024;
const MOST_BYTES_THEN: usize = 1024 * 1024;
/// Most that is taken at a time.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 256 * 1024;

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The connection is too far behind.
    Behind,
    /// Messages may have been missed.
    Lost,
}

/// What waits for a connection.
#[derive(Debug, Default)]
pub(super) struct Listener {
    state: Mutex<State>,
    /// There is something to take, or it ended.
    news: Notify,
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Message>>,
    bytes: usize,
    end: Option<End>,
}

impl Listener {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more message.
    pub(super) fn push(&self, message: &Arc<Message>) {
        let mut state = self.state();
        if state.end.is_some() {
            return;
        }
        let bytes = state.bytes + message.size();
        if !state.waiting.is_empty() && !has_room(state.waiting.len() + 1, bytes) {
            drop(state);
            return self.end(End::Behind);
        }
        state.bytes = bytes;
        state.waiting.push_back(Arc::clone(message));
        let is_first = state.waiting.len() == 1;
        drop(state);
        if is_first {
            self.news.notify_one();
        }
    }

    /// Nothing more comes, and what waits does not either.
    pub(super) fn end(&self, end: End) {
        let mut state = self.state();
        if state.end.is_none() {
            *state = State {
                end: Some(end),
                ..State::default()
            };
            drop(state);
            self.news.notify_one();
            self.ended.notify_one();
        }
    }

    /// The next ones, as soon as there are any.
    ///
    /// # Errors
    /// When it ended.
    pub(super) async fn next(&self) -> Result<Vec<Arc<Message>>, End> {
        loop {
            let taken = self.take(BATCH)?;
            if !taken.is_empty() {
                return Ok(taken);
            }
            self.news.notified().await;
        }
    }

    /// Up to so many of those that there are.
    ///
    /// # Errors
    /// When it ended.
    pub(super) fn take(&self, most: usize) -> Result<Vec<Arc<Message>>, End> {
        let mut state = self.state();
        if let Some(end) = state.end {
            return Err(end);
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < most
            && bytes < BATCH_BYTES
            && let Some(message) = state.waiting.pop_front()
        {
            bytes += message.size();
            taken.push(message);
        }
        state.bytes = state.bytes.saturating_sub(bytes);
        let is_rest = !state.waiting.is_empty();
        drop(state);
        if is_rest {
            self.news.notify_one();
        }
        Ok(taken)
    }

    /// Wait until it ends.
    pub(super) async fn ended(&self) -> End {
        loop {
            if let Some(end) = self.state().end {
                return end;
            }
            self.ended.notified().await;
        }
    }
}

/// Whether so much may wait for a connection.
pub(super) fn has_room(messages: usize, bytes: usize) -> bool {
    let most_bytes = if bytes_on_their_way() > MOST_BYTES_OF_ALL {
        MOST_BYTES_THEN
    } else {
        MOST_BYTES
    };
    messages <= MOST_MESSAGES && bytes <= most_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::json::JsonText;
    use crate::doors::pulsar::message::Topic;

    fn message(bytes: usize) -> Arc<Message> {
        let payload = JsonText::written(format!(r#"{{"a": "{}"}}"#, "x".repeat(bytes))).unwrap();
        let topic = Arc::new(Topic::new("a"));
        let id = uuid::Uuid::now_v7();
        Arc::new(Message::new(id, topic, &payload, None, true))
    }

    #[test]
    fn who_is_too_far_behind_is_given_up() {
        for (bytes, most) in [(1, 1000), (1_000_000, 16)] {
            let listener = Listener::default();
            let message = message(bytes);
            for _ in 0..most {
                listener.push(&message);
            }
            assert_eq!(listener.state().waiting.len(), most);
            listener.push(&message);
            assert_eq!(listener.take(1).unwrap_err(), End::Behind);
            // for others it is as before
            listener.end(End::Lost);
            assert_eq!(listener.take(1).unwrap_err(), End::Behind);
            assert_eq!(Arc::strong_count(&message), 1);
        }
    }

    #[tokio::test]
    async fn what_waits_comes_in_order_and_in_batches() {
        let listener = Listener::default();
        let all: Vec<_> = (0..150).map(|_| message(1)).collect();
        for message in &all {
            listener.push(message);
        }
        let mut taken = Vec::new();
        while taken.len() < 150 {
            let batch = listener.next().await.unwrap();
            assert!(batch.len() <= BATCH);
            taken.extend(batch);
        }
        assert!(taken.iter().zip(&all).all(|(a, b)| Arc::ptr_eq(a, b)));

        let (batch, ()) = tokio::join!(listener.next(), async { listener.push(&all[3]) });
        assert_eq!(batch.unwrap()[0].id, all[3].id);
        let (end, ()) = tokio::join!(listener.ended(), async { listener.end(End::Lost) });
        assert_eq!(end, End::Lost);
    }
}
