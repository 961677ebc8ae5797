//! The addresses of names. The system's resolver may take as long as it likes, on a thread of its own: so there is
//! one look-up of a name at a time, which all who want it share, and there are not too many.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::failure::Failure;

/// Names that are looked up at a time.
const LOOKUPS: usize = 32;
/// For a turn: less than any push may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Who knows the addresses of a name.
#[derive(Clone, Debug)]
pub(super) enum Resolver {
    /// The system.
    System,
    /// One look after the other, by script.
    #[cfg(test)]
    Script(Arc<Mutex<Vec<Vec<IpAddr>>>>),
    /// It answers once it may, and counts how often it was asked.
    #[cfg(test)]
    Slow(
        Arc<tokio::sync::RwLock<()>>,
        Arc<std::sync::atomic::AtomicUsize>,
    ),
}

type Found = Result<Arc<[IpAddr]>, Failure>;
/// What a look-up will find.
type Look = watch::Receiver<Option<Found>>;

/// Looks names up. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Names {
    resolver: Resolver,
    turns: Arc<Semaphore>,
    looks: Arc<Mutex<HashMap<String, Look>>>,
}

impl Names {
    pub(super) fn new(resolver: Resolver) -> Self {
        Self {
            resolver,
            turns: Arc::new(Semaphore::new(LOOKUPS)),
            looks: Arc::default(),
        }
    }

    /// The addresses of a name, as the look-up that runs or a new one says.
    pub(super) async fn look_up(&self, name: &str) -> Found {
        let mut look = self.look(name);
        let found = match look.wait_for(Option::is_some).await {
            Ok(found) => found.clone(),
            Err(_) => None,
        };
        found.unwrap_or_else(|| Err(Failure::Unknown(name.to_owned())))
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Look>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, name: &str) -> Look {
        let mut running = self.running();
        // one that broke down has nobody left who tells
        let tells = |look: &&Look| look.has_changed().is_ok();
        if let Some(look) = running.get(name).filter(tells) {
            return look.clone();
        }
        let (tell, look) = watch::channel(None);
        running.insert(name.to_owned(), look.clone());
        let (names, name) = (self.clone(), name.to_owned());
        // it goes on also when nobody waits any more
        tokio::spawn(async move {
            let found = names.ask(&name).await;
            names.running().remove(&name);
            tell.send_replace(Some(found));
        });
        look
    }

    async fn ask(&self, name: &str) -> Found {
        let turn = timeout(PATIENCE, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(Failure::Busy);
        };
        let found = match &self.resolver {
            Resolver::System => {
                let asked = name.to_owned();
                let looked = tokio::task::spawn_blocking(move || {
                    let found = (asked.as_str(), 0).to_socket_addrs()?;
                    std::io::Result::Ok(found.map(|found| found.ip()).collect::<Arc<[IpAddr]>>())
                });
                looked.await.ok().and_then(Result::ok)
            }
            #[cfg(test)]
            Resolver::Script(looks) => Some(looks.lock().unwrap().remove(0).into()),
            #[cfg(test)]
            Resolver::Slow(may, asked) => {
                asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let _may = may.read().await;
                Some([IpAddr::from([192, 0, 2, 1])].into())
            }
        };
        found.ok_or_else(|| Failure::Unknown(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::RwLock;

    use super::*;

    #[tokio::test]
    async fn who_wants_a_name_at_the_same_time_shares_a_look_up_and_others_have_theirs() {
        let (may, asked) = (Arc::new(RwLock::new(())), Arc::new(AtomicUsize::new(0)));
        let names = Names::new(Resolver::Slow(Arc::clone(&may), Arc::clone(&asked)));
        let held = may.write().await;
        let mut slow: Vec<_> = (0..1000).map(|_| names.look("slow.test")).collect();
        slow.push(names.look("other.test"));
        tokio::task::yield_now().await;
        drop(held);

        for look in &mut slow {
            let found = look.wait_for(Option::is_some).await.unwrap().clone();
            assert_eq!(found.unwrap().unwrap().len(), 1);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        names.look_up("slow.test").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn who_gets_no_turn_in_time_is_told_so() {
        let (may, asked) = (Arc::new(RwLock::new(())), Arc::new(AtomicUsize::new(0)));
        let names = Names::new(Resolver::Slow(Arc::clone(&may), asked));
        let held = may.write().await;
        let slow: Vec<_> = (0..LOOKUPS)
            .map(|n| names.look(&format!("{n}.test")))
            .collect();

        assert_eq!(names.look_up("last.test").await, Err(Failure::Busy));

        drop(held);
        join_all(slow.into_iter().map(async |mut look| {
            look.wait_for(Option::is_some).await.map(|_| ()).unwrap();
        }))
        .await;
        assert!(names.look_up("last.test").await.is_ok());
    }
}
