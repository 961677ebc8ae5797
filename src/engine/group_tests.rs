//! Merging, with calls that are held and fail as told.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;

/// What a call with this request in it does.
#[derive(Clone)]
pub(super) enum End {
    Answer,
    Fail(Error),
    Panic,
    /// It and all after it go into another call, unless it is the first.
    Later,
}

struct Request {
    name: usize,
    weight: usize,
    end: End,
}

/// Each call waits for a permit; a request is answered with its name.
struct Held {
    permits: Semaphore,
    /// The key of each call and the names of its requests.
    made: Mutex<Vec<(String, Vec<usize>)>>,
    undelivered: Mutex<Vec<(String, usize)>>,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

impl Calls for Arc<Held> {
    type Key = String;
    type Request = Request;
    type Answer = usize;

    fn weight(&self, request: &Request) -> usize {
        request.weight
    }

    async fn call(&self, key: &String, requests: &[Request]) -> Result<Vec<usize>, Error> {
        let names: Vec<_> = requests.iter().map(|request| request.name).collect();
        self.made.lock().unwrap().push((key.clone(), names.clone()));
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_running.fetch_max(running, Ordering::Relaxed);
        self.permits.acquire().await.unwrap().forget();
        self.running.fetch_sub(1, Ordering::Relaxed);
        for (position, request) in requests.iter().enumerate() {
            match &request.end {
                End::Later if position > 0 => {
                    return Ok(names.into_iter().take(position).collect());
                }
                End::Answer | End::Later => {}
                End::Fail(error) => return Err(error.clone()),
                End::Panic => panic!("told to"),
            }
        }
        Ok(names)
    }

    async fn undelivered(&self, key: &String, name: usize) {
        self.undelivered.lock().unwrap().push((key.clone(), name));
    }
}

pub(super) type Asked = JoinHandle<Result<usize, Error>>;

pub(super) struct Setup {
    calls: Arc<Held>,
    group: Arc<Group<Arc<Held>>>,
}

impl Setup {
    pub(super) fn new(most_running: usize) -> Self {
        let calls = Arc::new(Held {
            permits: Semaphore::new(0),
            made: Mutex::default(),
            undelivered: Mutex::default(),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
        });
        let group = Group::new(Arc::clone(&calls), most_running);
        Self { calls, group }
    }

    pub(super) async fn ask(&self, key: &str, name: usize, weight: usize, end: End) -> Asked {
        let (group, key) = (Arc::clone(&self.group), key.to_owned());
        let request = Request { name, weight, end };
        let asked = tokio::spawn(async move { group.request(key, request).await });
        turns().await;
        asked
    }

    /// A request that waits for nobody to spawn it.
    pub(super) async fn request(&self, key: &str, name: usize) -> Result<usize, Error> {
        let end = End::Answer;
        let request = Request {
            name,
            weight: 1,
            end,
        };
        self.group.request(key.to_owned(), request).await
    }

    /// Requests of key `k` and weight 1, whose names are their positions.
    pub(super) async fn ask_all<const N: usize>(&self, ends: [End; N]) -> [Asked; N] {
        let mut asked = Vec::new();
        for (name, end) in ends.into_iter().enumerate() {
            asked.push(self.ask("k", name, 1, end).await);
        }
        asked.try_into().unwrap()
    }

    pub(super) async fn release(&self, calls: usize) {
        self.calls.permits.add_permits(calls);
        turns().await;
    }

    /// The requests of each call so far.
    pub(super) fn made(&self) -> Vec<Vec<usize>> {
        let made = self.calls.made.lock().unwrap();
        made.iter().map(|(_, names)| names.clone()).collect()
    }

    /// The answers that nobody was there for.
    pub(super) fn undelivered(&self) -> Vec<(String, usize)> {
        self.calls.undelivered.lock().unwrap().clone()
    }

    pub(super) fn most_running(&self) -> usize {
        self.calls.most_running.load(Ordering::Relaxed)
    }

    pub(super) async fn ends_empty(&self) {
        turns().await;
        assert!(self.group.lock().is_empty());
    }
}

/// Let all other tasks of this thread come as far as they can.
pub(super) async fn turns() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

pub(super) fn internal() -> End {
    End::Fail(Error::Internal(Arc::new(Abandoned)))
}

fn unavailable() -> End {
    End::Fail(Error::Unavailable(Arc::new(sqlx::Error::PoolTimedOut)))
}

#[tokio::test]
async fn a_request_that_finds_no_call_of_its_key_running_is_called_at_once() {
    let setup = Setup::new(4);
    let held = setup.ask("a", 0, 1, End::Answer).await;

    let other = setup.ask("b", 1, 1, End::Answer).await;

    assert_eq!(setup.made(), [[0], [1]]);
    setup.release(2).await;
    assert_eq!(held.await.unwrap().unwrap(), 0);
    assert_eq!(other.await.unwrap().unwrap(), 1);
    setup.ends_empty().await;
}

#[tokio::test]
async fn what_comes_during_a_call_goes_into_the_next_and_each_gets_its_own_answer() {
    let setup = Setup::new(4);
    let asked = setup.ask_all([const { End::Answer }; 5]).await;
    assert_eq!(setup.made(), [[0]]);

    setup.release(1).await;
    assert_eq!(setup.made(), [vec![0], vec![1, 2, 3, 4]]);
    assert!(!asked[1].is_finished());
    setup.release(1).await;

    for (name, asked) in asked.into_iter().enumerate() {
        assert_eq!(asked.await.unwrap().unwrap(), name);
    }
    setup.ends_empty().await;
}

#[tokio::test]
async fn what_a_call_leaves_unanswered_goes_into_another_one_at_once() {
    let setup = Setup::new(1);
    let asked = setup
        .ask_all([
            End::Answer,
            End::Answer,
            End::Later,
            End::Answer,
            End::Later,
        ])
        .await;

    setup.release(4).await;

    for (name, asked) in asked.into_iter().enumerate() {
        assert_eq!(asked.await.unwrap().unwrap(), name);
    }
    let made = setup.made();
    assert_eq!(made, [vec![0], vec![1, 2, 3, 4], vec![2, 3, 4], vec![4]]);
    setup.ends_empty().await;
}

#[tokio::test]
async fn a_request_that_is_at_fault_fails_alone() {
    for fault in [End::Fail(Error::Invalid(Vec::new())), internal()] {
        let setup = Setup::new(4);
        let [_, before, bad, after] = setup
            .ask_all([End::Answer, End::Answer, fault, End::Answer])
            .await;

        setup.release(5).await;

        assert_eq!(
            setup.made(),
            [vec![0], vec![1, 2, 3], vec![1], vec![2], vec![3]]
        );
        assert_eq!(before.await.unwrap().unwrap(), 1);
        assert!(bad.await.unwrap().is_err());
        assert_eq!(after.await.unwrap().unwrap(), 3);
        setup.ends_empty().await;
    }
}

#[tokio::test]
async fn what_is_no_fault_of_a_request_goes_to_all_and_is_not_repeated() {
    let refused = End::Fail(Error::Refused {
        status: 404,
        message: String::new(),
    });
    let timeout = End::Fail(Error::Timeout(Arc::new(sqlx::Error::PoolTimedOut)));
    for (end, status) in [(unavailable(), 503), (refused, 404), (timeout, 504)] {
        let setup = Setup::new(4);
        let [_, first, second] = setup.ask_all([End::Answer, End::Answer, end]).await;

        setup.release(9).await;

        assert_eq!(setup.made(), [vec![0], vec![1, 2]]);
        assert_eq!(first.await.unwrap().unwrap_err().status(), status);
        assert_eq!(second.await.unwrap().unwrap_err().status(), status);
        setup.ends_empty().await;
    }
}

#[tokio::test]
async fn an_outage_found_while_requests_are_repeated_goes_to_the_rest_of_them() {
    let setup = Setup::new(4);
    let [_, first, bad, away, rest] = setup
        .ask_all([
            End::Answer,
            End::Answer,
            internal(),
            unavailable(),
            End::Answer,
        ])
        .await;

    setup.release(9).await;

    assert_eq!(
        setup.made(),
        [vec![0], vec![1, 2, 3, 4], vec![1], vec![2], vec![3]]
    );
    assert_eq!(first.await.unwrap().unwrap(), 1);
    assert_eq!(bad.await.unwrap().unwrap_err().status(), 500);
    assert_eq!(away.await.unwrap().unwrap_err().status(), 503);
    assert_eq!(rest.await.unwrap().unwrap_err().status(), 503);
    setup.ends_empty().await;
}
