//! Turns for logins whose check is slow: two at a time, clients one after the other, and of each client
//! the newest first. So who floods one client's login keeps neither the others waiting nor its right
//! login, and what waits is bounded: the oldest login of a client gives way.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use uuid::Uuid;

const AT_A_TIME: usize = 2;
/// Waiting logins of one client.
const WAITING_OF_CLIENT: usize = 4;
/// Clients with waiting logins.
const WAITING_CLIENTS: usize = 16;

/// Too many logins are waiting.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

/// The right to check one secret, until it is dropped.
#[derive(Debug)]
pub struct Turn(());

struct Waiting {
    client_id: Uuid,
    /// The newest last, never empty.
    logins: VecDeque<oneshot::Sender<Turn>>,
}

struct Queue {
    running: usize,
    /// Whose turn it is next first.
    clients: VecDeque<Waiting>,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    running: 0,
    clients: VecDeque::new(),
});

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wait for a turn to check a secret of a client.
///
/// # Errors
/// When too many are waiting, or newer logins of the client took the place of this one.
pub async fn turn(client_id: Uuid) -> Result<Turn, TooMany> {
    let mine = {
        let mut queue = queue();
        if queue.running < AT_A_TIME {
            queue.running += 1;
            return Ok(Turn(()));
        }
        queue.wait(client_id)?
    };
    mine.await.map_err(|_| TooMany)
}

impl Queue {
    fn wait(&mut self, client_id: Uuid) -> Result<oneshot::Receiver<Turn>, TooMany> {
        let (sender, mine) = oneshot::channel();
        let known = self
            .clients
            .iter_mut()
            .find(|waiting| waiting.client_id == client_id);
        if let Some(waiting) = known {
            waiting.logins.retain(|login| !login.is_closed());
            if waiting.logins.len() >= WAITING_OF_CLIENT {
                waiting.logins.pop_front();
            }
            waiting.logins.push_back(sender);
        } else if self.clients.len() < WAITING_CLIENTS {
            self.clients.push_back(Waiting {
                client_id,
                logins: VecDeque::from([sender]),
            });
        } else {
            return Err(TooMany);
        }
        Ok(mine)
    }

    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let mut waiting = self.clients.pop_front()?;
        let newest = waiting.logins.pop_back();
        if !waiting.logins.is_empty() {
            self.clients.push_back(waiting);
        }
        newest
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queue = queue();
        while let Some(next) = queue.next() {
            match next.send(Self(())) {
                Ok(()) => return,
                // it went away; this turn is still ours to give
                Err(unused) => std::mem::forget(unused),
            }
        }
        queue.running -= 1;
    }
}

#[cfg(test)]
#[path = "slow_logins_tests.rs"]
mod tests;
