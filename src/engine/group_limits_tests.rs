//! Clients that go away, how much goes into a call, and panics.

use std::time::Duration;

use super::tests::{End, Setup, internal, turns};

#[tokio::test]
async fn a_request_whose_client_went_away_before_its_call_is_not_made() {
    let setup = Setup::new(4);
    let [_, gone, stays] = setup.ask_all([const { End::Answer }; 3]).await;

    gone.abort();
    turns().await;
    setup.release(9).await;

    assert_eq!(setup.made(), [[0], [2]]);
    assert_eq!(stays.await.unwrap().unwrap(), 2);
    setup.ends_empty().await;
}

#[tokio::test]
async fn a_client_that_goes_away_during_a_call_disturbs_neither_it_nor_the_others() {
    let setup = Setup::new(4);
    let [first, gone, stays] = setup.ask_all([const { End::Answer }; 3]).await;
    first.abort();
    setup.release(1).await;
    let late = setup.ask("k", 3, 1, End::Answer).await;

    gone.abort();
    turns().await;
    setup.release(9).await;

    assert_eq!(setup.made(), [vec![0], vec![1, 2], vec![3]]);
    assert_eq!(stays.await.unwrap().unwrap(), 2);
    assert_eq!(late.await.unwrap().unwrap(), 3);
    setup.ends_empty().await;
}

#[tokio::test]
async fn a_request_whose_client_went_away_is_not_repeated() {
    let setup = Setup::new(4);
    let [_, bad, gone, stays] = setup
        .ask_all([End::Answer, internal(), End::Answer, End::Answer])
        .await;
    setup.release(1).await;

    gone.abort();
    turns().await;
    setup.release(9).await;

    assert_eq!(setup.made(), [vec![0], vec![1, 2, 3], vec![1], vec![3]]);
    assert!(bad.await.unwrap().is_err());
    assert_eq!(stays.await.unwrap().unwrap(), 3);
    setup.ends_empty().await;
}

#[tokio::test]
async fn no_call_has_more_than_the_bound_unless_a_single_request_has() {
    let setup = Setup::new(1);
    let weights = [1, 600, 400, 1, 5000, 999, 1, 1];
    let mut asked = Vec::new();
    for (name, weight) in weights.into_iter().enumerate() {
        asked.push(setup.ask("k", name, weight, End::Answer).await);
    }

    setup.release(9).await;

    assert_eq!(
        setup.made(),
        [vec![0], vec![1, 2], vec![3], vec![4], vec![5, 6], vec![7]]
    );
    for (name, asked) in asked.into_iter().enumerate() {
        assert_eq!(asked.await.unwrap().unwrap(), name);
    }
    setup.ends_empty().await;
}

#[tokio::test]
async fn much_that_waits_is_called_beside_what_runs_by_no_more_calls_than_allowed() {
    let setup = Setup::new(3);
    let mut asked = Vec::new();
    for (name, weight) in [1, 199, 1, 100, 100, 200, 200].into_iter().enumerate() {
        asked.push(setup.ask("k", name, weight, End::Answer).await);
    }
    // 199 waits for the first call, 200 does not; and the fourth call is one too many
    assert_eq!(setup.made(), [vec![0], vec![1, 2], vec![3, 4]]);

    setup.release(9).await;

    assert_eq!(setup.made(), [vec![0], vec![1, 2], vec![3, 4], vec![5, 6]]);
    assert_eq!(setup.most_running(), 3);
    for (name, asked) in asked.into_iter().enumerate() {
        assert_eq!(asked.await.unwrap().unwrap(), name);
    }
    setup.ends_empty().await;
}

#[tokio::test]
async fn a_panic_fails_what_waits_for_it_and_blocks_nothing_later() {
    let setup = Setup::new(4);
    let [bad, waits] = setup.ask_all([End::Panic, End::Answer]).await;
    setup.release(9).await;

    assert_eq!(bad.await.unwrap().unwrap_err().status(), 500);
    assert_eq!(waits.await.unwrap().unwrap_err().status(), 500);
    setup.ends_empty().await;

    let later = setup.ask("k", 2, 1, End::Answer).await;
    assert_eq!(later.await.unwrap().unwrap(), 2);
    setup.ends_empty().await;
}

#[tokio::test]
async fn after_a_panic_what_waits_is_called_by_the_call_beside_it() {
    let setup = Setup::new(2);
    let bad = setup.ask("k", 0, 1, End::Panic).await;
    let beside = setup.ask("k", 1, 200, End::Answer).await;
    let waits = setup.ask("k", 2, 1, End::Answer).await;
    setup.release(1).await;
    assert_eq!(bad.await.unwrap().unwrap_err().status(), 500);

    let much = setup.ask("k", 3, 200, End::Answer).await;
    let more = setup.ask("k", 4, 200, End::Answer).await;
    setup.release(9).await;

    assert_eq!(beside.await.unwrap().unwrap(), 1);
    assert_eq!(waits.await.unwrap().unwrap(), 2);
    assert_eq!(much.await.unwrap().unwrap(), 3);
    assert_eq!(more.await.unwrap().unwrap(), 4);
    assert_eq!(setup.most_running(), 2);
    setup.ends_empty().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_long_for_a_slow_call_is_called_beside_it() {
    let setup = Setup::new(2);
    let [slow, waits] = setup.ask_all([const { End::Answer }; 2]).await;
    assert_eq!(setup.made(), [[0]]);

    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(setup.made(), [[0], [1]]);

    setup.release(9).await;
    assert_eq!(slow.await.unwrap().unwrap(), 0);
    assert_eq!(waits.await.unwrap().unwrap(), 1);
    setup.ends_empty().await;
}
