use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::maybe_done;
use tokio::sync::Mutex;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::{beside, pulled};

#[tokio::test]
async fn a_pull_goes_on_while_something_waits_for_what_it_holds() {
    let look = Mutex::new(());
    let mut pulling = Some(maybe_done(Box::pin(async {
        let _looks = look.lock().await;
        yield_now().await;
        "a message"
    })));
    assert_eq!(pulled(&mut pulling).now_or_never(), None);
    assert!(look.try_lock().is_err());

    let looked = beside(&mut pulling, look.lock());
    let looked = timeout(Duration::from_secs(5), looked).await;

    drop(looked.expect("the pull stands still"));
    assert_eq!(pulled(&mut pulling).await, "a message");
}

#[tokio::test]
async fn work_beside_no_pull_is_done() {
    let mut pulling = Some(maybe_done(Box::pin(async {})));
    pulled(&mut pulling).await;
    assert_eq!(beside(&mut pulling, async { 7 }).await, 7);
    assert_eq!(pulled(&mut pulling).now_or_never(), None);
}
