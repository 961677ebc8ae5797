use std::collections::BTreeMap;

use chrono::Utc;
use uuid::Uuid;

use super::super::guard::Guard;
use super::super::names::Resolver;
use super::super::worker;
use super::*;
use crate::config::push::networks;
use crate::db::Timestamp;
use crate::db::json::JsonText;

fn delivery() -> Delivery {
    Delivery {
        message_id: Uuid::now_v7(),
        payload: JsonText::written("{}".to_owned()).unwrap(),
        attempts: 1,
        published_at: Timestamp(Utc::now()),
        lease: Some(1),
        subscription_id: None,
        attributes: None,
        ordering_key: Some("k".to_owned()),
        priority: None,
        ack_deadline: None,
    }
}

fn batch(show: Show, lease: Duration, places: &Arc<Semaphore>) -> Arc<Batch> {
    let endpoint = PushEndpoint {
        subscription_id: "s".to_owned(),
        topic_id: "t".to_owned(),
        endpoint: "http://127.0.0.1:1/".to_owned(),
        headers: BTreeMap::new(),
        timeout_seconds: 1,
        secrets: Vec::new(),
        pause: None,
        failures: 0,
        is_ordered: true,
        max_in_flight: None,
        version: 0,
    };
    Arc::new(Batch {
        target: Arc::new(worker::target(&endpoint)),
        endpoint: Arc::new(endpoint),
        dialer: Dialer::new(Guard::new(networks("").unwrap(), Resolver::System)),
        places: Arc::clone(places),
        show,
        origin: Origin {
            version: 0,
            is_probe: false,
            lease_ends: Instant::now() + lease,
        },
        is_open: Arc::new(AtomicBool::new(true)),
        share: Mutex::new(None),
    })
}

#[tokio::test]
async fn what_breaks_the_sender_is_a_failed_attempt_that_holds_no_place() {
    let places = Arc::new(Semaphore::new(1));
    let breaks: Show = |_, _| panic!("a message that breaks the sender");
    let batch = batch(breaks, Duration::from_secs(60), &places);
    let lane = vec![delivery(), delivery()];
    let handles: Vec<Handle> = lane.iter().map(Delivery::handle).collect();
    let (sender, mut told) = mpsc::channel(2);

    batch.send(lane, sender).await;

    let first = told.recv().await.unwrap();
    assert_eq!(
        (first.handle, first.outcome),
        (handles[0], Outcome::broken())
    );
    let second = told.recv().await.unwrap();
    assert_eq!(
        (second.handle, second.outcome),
        (handles[1], Outcome::Unsent)
    );
    assert_eq!(places.available_permits(), 1);
}

#[tokio::test]
async fn what_has_too_little_left_of_its_lease_is_not_sent() {
    let places = Arc::new(Semaphore::new(1));
    let breaks: Show = |_, _| panic!("it was sent");
    // for the timeout of the endpoint, a second, and for settling
    let enough = Duration::from_secs(1) + MARGIN / 2;
    for (lease, outcome) in [
        (enough, Outcome::Unsent),
        (enough + Duration::from_secs(10), Outcome::broken()),
    ] {
        let (sender, mut told) = mpsc::channel(1);
        batch(breaks, lease, &places)
            .send(vec![delivery()], sender)
            .await;
        assert_eq!(told.recv().await.unwrap().outcome, outcome);
    }
}

#[tokio::test]
async fn only_a_probe_that_asked_nobody_goes_back_without_an_attempt() {
    let (sender, mut told) = mpsc::channel(1);
    let places = Arc::new(Semaphore::new(1));
    batch(|_, _| Vec::new(), Duration::ZERO, &places)
        .send(vec![delivery()], sender)
        .await;
    let mut ended = told.recv().await.unwrap();
    for (is_probe, is_reached, goes_back) in [
        (true, false, true),
        (true, true, false),
        (false, false, false),
    ] {
        ended.origin.is_probe = is_probe;
        ended.outcome = Outcome::Failed {
            reason: "timeout".to_owned(),
            retry_after: None,
            is_reached,
        };
        assert_eq!(ended.goes_back_noted(), goes_back);
    }
}
