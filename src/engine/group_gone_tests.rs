//! What becomes of answers whose callers went away.

use std::task::{Context, Waker};

use super::tests::{End, Setup, turns};

fn of_k(name: usize) -> (String, usize) {
    ("k".to_owned(), name)
}

#[tokio::test]
async fn an_answer_whose_caller_left_during_the_call_is_undelivered() {
    let setup = Setup::new(4);
    let [first, second, third] = setup.ask_all([const { End::Answer }; 3]).await;
    first.abort();
    setup.release(1).await;
    assert_eq!(setup.undelivered(), [of_k(0)]);

    second.abort();
    setup.release(1).await;

    assert_eq!(setup.undelivered(), [of_k(0), of_k(1)]);
    assert_eq!(third.await.unwrap().unwrap(), 2);
    setup.ends_empty().await;
}

#[tokio::test]
async fn an_answer_that_is_there_when_its_caller_leaves_is_undelivered() {
    let setup = Setup::new(4);
    let mut request = Box::pin(setup.request("k", 7));
    let mut context = Context::from_waker(Waker::noop());
    assert!(request.as_mut().poll(&mut context).is_pending());
    setup.release(1).await;
    assert_eq!(setup.undelivered(), []);

    drop(request);
    turns().await;

    assert_eq!(setup.undelivered(), [of_k(7)]);
    setup.ends_empty().await;
}

#[tokio::test]
async fn an_answer_that_was_taken_is_not_undelivered() {
    let setup = Setup::new(4);
    let [asked] = setup.ask_all([End::Answer]).await;

    setup.release(1).await;

    assert_eq!(asked.await.unwrap().unwrap(), 0);
    turns().await;
    assert_eq!(setup.undelivered(), []);
}
