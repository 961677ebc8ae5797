//! Two servers on one database: nothing is in the memory of either.

use futures_util::future::join_all;
use serde_json::json;

use super::{Door, KEY, door, nothing};
use crate::support::TestApp;

#[tokio::test]
async fn what_one_server_did_the_other_knows() {
    let first = door().await;
    let flags = ["--broker-api-key", KEY, "--broker-listen", "127.0.0.1:0"];
    let second = Door {
        app: TestApp::start_on(first.app.database.share(), &flags).await,
    };
    let ([here, _], [there, _]) = (first.places(), second.places());

    here.publish(&[json!("queue")]).await;
    let pulled = there.pull(&there.queue("")).await;
    assert_eq!(pulled["message"], "queue");
    assert_eq!(here.pull(&here.queue("")).await, nothing());
    assert_eq!(here.settle("/ack", &pulled, json!({})).await, "acked");

    let id = here.subscribe("order.*").await;
    assert_eq!(there.subscribe("order.*").await, id);
    there.tell("order.paid", json!("topic")).await;
    assert_eq!(here.pull(&here.topic("")).await["message"], "topic");

    // a pull that waits here hears of what is published there
    let path = here.queue("/pull");
    let waiting = here.post(&path, json!({"wait_seconds": 30}));
    let publishing = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        there.publish(&[json!("later")]).await;
    };
    let (pulled, ()) = tokio::join!(waiting, publishing);
    assert_eq!(pulled.expect(200).json()["message"], "later");
}

#[tokio::test]
async fn one_key_publishes_once_also_at_the_same_time_on_two_servers() {
    let first = door().await;
    let flags = ["--broker-api-key", KEY, "--broker-listen", "127.0.0.1:0"];
    let second = Door {
        app: TestApp::start_on(first.app.database.share(), &flags).await,
    };
    let places = [first.places(), second.places()].map(|[mounted, _]| mounted);
    let publish = async |n: usize| {
        let place = &places[n % 2];
        let body = json!({"message": n, "idempotency_key": format!("k{}", n % 5)});
        place.post(&place.queue("/publish"), body).await
    };

    let answers = join_all((0..40).map(publish)).await;

    let created = answers.iter().filter(|answer| answer.status == 201).count();
    let duplicates = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((created, duplicates), (5, 35));
    assert_eq!(places[0].drain(&places[0].queue("")).await.len(), 5);
}

#[tokio::test]
async fn one_queue_is_made_once_however_many_ask_at_the_same_time() {
    let first = door().await;
    let flags = ["--broker-api-key", KEY, "--broker-listen", "127.0.0.1:0"];
    let second = Door {
        app: TestApp::start_on(first.app.database.share(), &flags).await,
    };
    let places = [first.places(), second.places()].map(|[mounted, _]| mounted);
    let ask = async |n: usize| {
        let place = &places[n % 2];
        if n % 4 < 2 {
            return place.put(&place.queue("")).await.status;
        }
        let body = json!({ "message": n });
        place
            .post(&place.queue("/publish"), body)
            .await
            .expect(201)
            .status
    };

    let statuses = join_all((0..24).map(ask)).await;

    let made = statuses
        .iter()
        .enumerate()
        .filter(|(n, status)| n % 4 < 2 && **status == 201);
    assert!(made.count() <= 1, "{statuses:?}");
    assert_eq!(places[1].drain(&places[1].queue("")).await.len(), 12);
}
