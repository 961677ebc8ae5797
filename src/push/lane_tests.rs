use std::collections::BTreeMap;

use chrono::Utc;
use uuid::Uuid;

use super::super::guard::{Guard, Resolver};
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

#[tokio::test]
async fn what_breaks_the_sender_is_a_failed_attempt_that_holds_no_place() {
    let endpoint = PushEndpoint {
        subscription_id: "s".to_owned(),
        topic_id: "t".to_owned(),
        endpoint: "http://127.0.0.1:1/".to_owned(),
        headers: BTreeMap::new(),
        timeout_seconds: 1,
        secrets: Vec::new(),
        paused_until: None,
        failures: 0,
        is_ordered: true,
        max_in_flight: None,
        version: 0,
    };
    let places = Arc::new(Semaphore::new(1));
    let batch = Batch {
        target: Arc::new(worker::target(&endpoint)),
        endpoint: Arc::new(endpoint),
        dialer: Dialer::new(Guard::new(networks("").unwrap(), Resolver::System)),
        places: Arc::clone(&places),
        show: |_, _| panic!("a message that breaks the sender"),
        claimed_at: Instant::now(),
        is_open: Arc::new(AtomicBool::new(true)),
        _share: None,
    };
    let lane = vec![delivery(), delivery()];
    let handles: Vec<Handle> = lane.iter().map(Delivery::handle).collect();
    let (sender, mut told) = mpsc::channel(2);

    Arc::new(batch).send(lane, sender).await;

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
