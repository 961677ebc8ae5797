use std::time::Duration;

use super::*;

/// Whether a turn comes soon, which it does at once or not at all here.
async fn comes(waiting: &mut (impl Future<Output = Result<Turn, TooMany>> + Unpin)) -> bool {
    let soon = tokio::time::timeout(Duration::from_millis(50), waiting);
    matches!(soon.await, Ok(Ok(_)))
}

/// One test, for the queue is one.
#[tokio::test]
async fn turns_go_from_client_to_client_and_to_the_newest_login_of_each() {
    let (attacked, other) = (Uuid::now_v7(), Uuid::now_v7());
    let first = turn(attacked).await.unwrap();
    let second = turn(attacked).await.unwrap();

    let mut waiting = Vec::new();
    for _ in 0..=WAITING_OF_CLIENT {
        let mut login = Box::pin(turn(attacked));
        assert!(is_queued(&mut login).await);
        waiting.push(login);
    }
    // the oldest had to give way
    assert_eq!(waiting.remove(0).await.err(), Some(TooMany));
    let mut of_other = Box::pin(turn(other));
    assert!(is_queued(&mut of_other).await);

    drop(first);
    let mut newest = waiting.pop().unwrap();
    assert!(!comes(&mut waiting[0]).await);
    let newest = newest.as_mut().await.unwrap();
    drop(newest);
    assert!(comes(&mut of_other).await);
    // who goes away takes no turn with him
    drop(waiting.pop());
    drop(second);
    for mut login in waiting.into_iter().rev() {
        assert!(comes(&mut login).await);
    }

    // and none is lost
    let all = [turn(other).await.unwrap(), turn(other).await.unwrap()];
    assert_eq!(queue().running, AT_A_TIME);
    assert!(queue().clients.is_empty());
    drop(all);
    assert_eq!(queue().running, 0);
}

/// Ask a future once, so that it is in the queue.
async fn is_queued(login: &mut (impl Future<Output = Result<Turn, TooMany>> + Unpin)) -> bool {
    tokio::time::timeout(Duration::ZERO, login).await.is_err()
}
