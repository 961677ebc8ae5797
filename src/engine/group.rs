//! Merging concurrent calls. What arrives for one key while a call for it runs goes into the next
//! call, together; a request that finds none running is called at once and waits for nobody.
//!
//! Most of the cost of a small call is the call itself: a round trip, plans to start, a commit. Calls
//! end in one commit or none, and each request is answered after that.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::Error;

/// Most weight of one call, unless a single request has more.
const MAX_WEIGHT: usize = 1000;
/// So much weight does not wait for a running call: another one runs beside it.
const FULL_WEIGHT: usize = 200;
/// Nor does a request wait longer for calls that take their time, such as for a message that is
/// expensive to filter.
const PATIENCE: Duration = Duration::from_secs(2);

/// Calls that can be merged.
pub(super) trait Calls: Send + Sync + 'static {
    /// What requests that go into one call have in common.
    type Key: Clone + Eq + Hash + Send + Sync + 'static;
    /// One request.
    type Request: Send + Sync + 'static;
    /// Its answer.
    type Answer: Send + 'static;

    /// How much a request adds to a call: 1 for a message.
    fn weight(&self, request: &Self::Request) -> usize;

    /// Answer requests by one call, in their order: all of them, or the first ones, at least one, when
    /// the others are to go into another call. An error means that nothing was done.
    fn call(
        &self,
        key: &Self::Key,
        requests: &[Self::Request],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, Error>> + Send;

    /// Whoever asked for this answer is gone.
    fn undelivered(
        &self,
        _key: &Self::Key,
        _answer: Self::Answer,
    ) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// A request that waits for its call.
struct Waiting<C: Calls> {
    request: C::Request,
    weight: usize,
    answer: oneshot::Sender<Result<C::Answer, Error>>,
}

/// The requests of one key.
struct Queue<C: Calls> {
    waiting: VecDeque<Waiting<C>>,
    weight: usize,
    running: usize,
}

/// Merges calls.
pub(super) struct Group<C: Calls> {
    calls: C,
    most_running: usize,
    queues: Mutex<HashMap<C::Key, Queue<C>>>,
}

impl<C: Calls> Group<C> {
    /// At most so many calls of one key run at a time.
    pub(super) fn new(calls: C, most_running: usize) -> Arc<Self> {
        Arc::new(Self {
            calls,
            most_running,
            queues: Mutex::default(),
        })
    }

    /// The answer to one request, by whichever call it goes into.
    pub(super) async fn request(
        self: &Arc<Self>,
        key: C::Key,
        request: C::Request,
    ) -> Result<C::Answer, Error> {
        let (sender, answer) = oneshot::channel();
        let weight = self.calls.weight(&request);
        let starts = {
            let mut queues = self.lock();
            let queue = queues.entry(key.clone()).or_insert_with(|| Queue {
                waiting: VecDeque::new(),
                weight: 0,
                running: 0,
            });
            queue.weight += weight;
            queue.waiting.push_back(Waiting {
                request,
                weight,
                answer: sender,
            });
            let starts = queue.running == 0
                || (queue.weight >= FULL_WEIGHT && queue.running < self.most_running);
            queue.running += usize::from(starts);
            starts
        };
        if starts {
            self.start(key.clone());
        }
        let mut expected = Expected {
            group: Arc::clone(self),
            key,
            answer,
        };
        let answer = (&mut expected.answer).await;
        answer.unwrap_or_else(|_| Err(Error::Internal(Arc::new(Abandoned))))
    }

    /// Start a series of calls: not in the caller's task, which ends when its client goes away.
    fn start(self: &Arc<Self>, key: C::Key) {
        let running = Running {
            group: Arc::clone(self),
            key,
            ended: false,
        };
        tokio::spawn(running.work());
    }

    /// Start another one for what waits, if any does.
    fn overtake(self: &Arc<Self>, key: &C::Key) {
        let starts = {
            let mut queues = self.lock();
            let queue = queues.get_mut(key);
            queue.is_some_and(|queue| {
                let starts = !queue.waiting.is_empty() && queue.running < self.most_running;
                queue.running += usize::from(starts);
                starts
            })
        };
        if starts {
            self.start(key.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<C::Key, Queue<C>>> {
        // nothing in here panics half way
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that a caller waits for. One that comes when the caller is just gone is not lost.
struct Expected<C: Calls> {
    group: Arc<Group<C>>,
    key: C::Key,
    answer: oneshot::Receiver<Result<C::Answer, Error>>,
}

impl<C: Calls> Drop for Expected<C> {
    fn drop(&mut self) {
        self.answer.close();
        // outside the runtime only when the whole service ends
        if let (Ok(Ok(answer)), Ok(runtime)) = (self.answer.try_recv(), Handle::try_current()) {
            let (group, key) = (Arc::clone(&self.group), self.key.clone());
            runtime.spawn(async move { group.calls.undelivered(&key, answer).await });
        }
    }
}

/// A running series of calls of one key, which ends when nothing waits.
struct Running<C: Calls> {
    group: Arc<Group<C>>,
    key: C::Key,
    ended: bool,
}

impl<C: Calls> Running<C> {
    async fn work(mut self) {
        while let Some(batch) = self.next() {
            let (requests, answers): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .map(|waiting| (waiting.request, waiting.answer))
                .unzip();
            self.answer(&requests, answers).await;
        }
    }

    /// What waits, of clients that are still there; or the end, noted under the same lock, so that
    /// no request counts on this series any more.
    fn next(&mut self) -> Option<Vec<Waiting<C>>> {
        let mut queues = self.group.lock();
        let Entry::Occupied(mut entry) = queues.entry(self.key.clone()) else {
            // cannot be: the queue stays as long as a series of it runs
            self.ended = true;
            return None;
        };
        let queue = entry.get_mut();
        let mut batch = Vec::new();
        let mut weight = 0;
        while let Some(first) = queue
            .waiting
            .pop_front_if(|first| batch.is_empty() || weight + first.weight <= MAX_WEIGHT)
        {
            queue.weight -= first.weight;
            if !first.answer.is_closed() {
                weight += first.weight;
                batch.push(first);
            }
        }
        if batch.is_empty() {
            self.ended = true;
            queue.running -= 1;
            if queue.running == 0 {
                entry.remove();
            }
            return None;
        }
        Some(batch)
    }

    async fn answer(
        &self,
        requests: &[C::Request],
        answers: Vec<oneshot::Sender<Result<C::Answer, Error>>>,
    ) {
        let calls = &self.group.calls;
        let mut left = requests;
        let mut answers = answers.into_iter();
        while !left.is_empty() {
            match self.call(left).await {
                Ok(results) => {
                    left = left.get(results.len().max(1)..).unwrap_or_default();
                    let mut undelivered = Vec::new();
                    for result in results {
                        // the client went away meanwhile
                        if let Some(Err(Ok(result))) =
                            answers.next().map(|answer| answer.send(Ok(result)))
                        {
                            undelivered.push(result);
                        }
                    }
                    for result in undelivered {
                        calls.undelivered(&self.key, result).await;
                    }
                }
                // one request may have failed all
                Err(Error::Invalid(_) | Error::Internal(_)) if left.len() > 1 => {
                    return self.answer_each(left, answers.collect()).await;
                }
                Err(error) => {
                    for answer in answers {
                        let _gone = answer.send(Err(error.clone()));
                    }
                    return;
                }
            }
        }
    }

    /// Call, and let others go on without it when it takes its time.
    async fn call(&self, requests: &[C::Request]) -> Result<Vec<C::Answer>, Error> {
        let mut call = pin!(self.group.calls.call(&self.key, requests));
        loop {
            match tokio::time::timeout(PATIENCE, call.as_mut()).await {
                Ok(answered) => return answered,
                Err(_) => self.group.overtake(&self.key),
            }
        }
    }

    /// Each by a call of its own, until the database is away: to find that out may take long, and
    /// once is enough.
    async fn answer_each(
        &self,
        requests: &[C::Request],
        answers: Vec<oneshot::Sender<Result<C::Answer, Error>>>,
    ) {
        let calls = &self.group.calls;
        let mut away = None;
        for (request, answer) in requests.iter().zip(answers) {
            if answer.is_closed() {
                continue;
            }
            let result = match &away {
                Some(error) => Err(Error::clone(error)),
                None => self.call(std::slice::from_ref(request)).await,
            };
            if let Err(error @ Error::Unavailable(_)) = &result {
                away = Some(error.clone());
            }
            let sent = answer.send(result.and_then(|mut results| {
                results
                    .pop()
                    .ok_or_else(|| Error::Internal(Arc::new(Abandoned)))
            }));
            if let Err(Ok(result)) = sent {
                calls.undelivered(&self.key, result).await;
            }
        }
    }
}

impl<C: Calls> Drop for Running<C> {
    /// After a panic of a call: what waits is another series' or, when there is none, is told.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut queues = self.group.lock();
        if let Entry::Occupied(mut entry) = queues.entry(self.key.clone()) {
            entry.get_mut().running -= 1;
            if entry.get().running == 0 {
                entry.remove();
            }
        }
    }
}

/// A call ended without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the call ended without an answer")]
struct Abandoned;

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "group_limits_tests.rs"]
mod limits_tests;

#[cfg(test)]
#[path = "group_gone_tests.rs"]
mod gone_tests;
