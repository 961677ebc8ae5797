//! What is around queues and topics: pages, unknown paths, other origins, metrics, an absent database.

use serde_json::{Value, json};

use super::{Door, KEY, Place, door, door_with};
use crate::support::database::TestDatabase;
use crate::support::{Answer, TestApp};

async fn open(place: &Place<'_>, path: &str) -> Answer {
    place.answer(place.request("GET", path)).await
}

#[tokio::test]
async fn the_service_says_how_it_is_at_both_places() {
    let door = door().await;
    for place in door.places() {
        for path in ["/health", "/api/v1/health"] {
            let health = open(&place, path).await.expect(200).json();
            assert_eq!(health["status"], "healthy");
            assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
            let at = health["timestamp"].as_str().unwrap();
            assert!(chrono::DateTime::parse_from_rfc3339(at).is_ok(), "{at}");
        }
        for page in ["/docs", "/redoc"] {
            let page = open(&place, page).await.expect(200);
            assert!(
                page.header("content-type")
                    .unwrap()
                    .starts_with("text/html")
            );
            assert!(!page.body.contains("https://"), "{}", page.body);
        }
        let document = open(&place, "/openapi.json").await.expect(200).json();
        let paths = document["paths"].as_object().unwrap();
        assert!(
            paths.contains_key("/api/v1/queues/{name}/publish"),
            "{paths:?}"
        );
        assert_eq!(document["servers"][0]["url"], "./");
        let empty = json!({"queues": {}, "topics": {}});
        assert_eq!(open(&place, "/stats").await.expect(200).json(), empty);
        assert_eq!(
            open(&place, "/api/v1/stats").await.expect(200).json(),
            empty
        );
    }
}

#[tokio::test]
async fn what_is_no_route_is_told_in_the_door_s_words() {
    let door = door().await;
    for place in door.places() {
        for path in [
            "/nothing",
            "/api/v1/nothing",
            "/api/v1/queues/q/nothing",
            "/queues/q",
        ] {
            let refused = open(&place, path).await.expect(404).json();
            assert!(refused["error"].is_string(), "{path}: {refused}");
        }
        for (method, path) in [("PATCH", "/queues/q"), ("GET", "/queues/q/pull")] {
            let refused = place.send(KEY, method, path, None).await.expect(405);
            assert!(refused.json()["error"].is_string());
            assert!(refused.header("allow").is_some());
        }
    }
    // the other doors are not behind this one
    let [_, alone] = door.places();
    for path in ["/topics", "/liveness", "/broker/health", "/pyqueue/health"] {
        open(&alone, path).await.expect(404);
    }
}

#[tokio::test]
async fn pages_of_listed_origins_may_call_it() {
    let cross = async |place: &Place<'_>, origin: &str| {
        let request = place.request("GET", "/api/v1/queues/q/stats");
        place
            .answer(request.header("Origin", origin))
            .await
            .expect(401)
    };
    let origin = "https://shop.example";
    let header = "access-control-allow-origin";
    let closed = door().await;
    for place in closed.places() {
        assert_eq!(cross(&place, origin).await.header(header), None);
    }
    let flags = [
        "--broker-cors-origins",
        "https://shop.example,http://localhost:3000",
    ];
    let listed = door_with(&flags).await;
    for place in listed.places() {
        assert_eq!(cross(&place, origin).await.header(header), Some(origin));
        assert_eq!(
            cross(&place, "https://other.example").await.header(header),
            None
        );
        let preflight = place
            .request("OPTIONS", "/api/v1/queues/q/publish")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST")
            .header(
                "Access-Control-Request-Headers",
                "authorization,content-type",
            );
        let allowed = place.answer(preflight).await.expect(200);
        assert_eq!(allowed.header(header), Some(origin));
        let headers = allowed.header("access-control-allow-headers");
        assert_eq!(headers, Some("authorization,content-type"));
    }
    let any = door_with(&["--broker-cors-origins", "*"]).await;
    for place in any.places() {
        assert_eq!(cross(&place, origin).await.header(header), Some("*"));
    }
}

#[tokio::test]
async fn what_happens_in_a_queue_is_counted() {
    let door = door_with(&["--broker-max-retries", "1"]).await;
    for place in door.places() {
        let name = format!("{}-{}", place.name, uuid::Uuid::now_v7().simple());
        let place = Place { name, ..place };
        let names = open(&place, "/metrics").await.expect(200).body;
        for name in [
            "broker_messages_nacked_total{",
            "broker_retries_total{",
            "broker_dlq_size{",
        ] {
            assert!(names.contains(name), "{name}");
        }
        place.publish(&[json!(1), json!(2), json!(3)]).await;
        let body = json!({"message": 1, "idempotency_key": "k"});
        for _ in 0..2 {
            place.post(&place.queue("/publish"), body.clone()).await;
        }
        let pulled = place.pull(&place.queue("")).await;
        place.settle("/ack", &pulled, json!({})).await;
        place
            .post(&place.queue("/pull"), json!({"auto_ack": true}))
            .await
            .expect(200);
        for _ in 0..2 {
            let pulled = place.pull(&place.queue("")).await;
            place.settle("/nack", &pulled, json!({})).await;
        }
        place.subscribe("#").await;
        place.tell("a", json!(1)).await;

        let metrics = open(&place, "/metrics").await.expect(200).body;
        let queue = &place.name;
        for (name, label, count) in [
            ("broker_messages_published_total", queue.clone(), 4),
            ("broker_messages_delivered_total", queue.clone(), 4),
            ("broker_messages_acked_total", queue.clone(), 2),
            ("broker_messages_nacked_total", queue.clone(), 2),
            ("broker_retries_total", queue.clone(), 1),
            (
                "broker_messages_published_total",
                format!("topics/{queue}"),
                1,
            ),
        ] {
            let line = format!("{name}{{queue=\"{label}\"}} {count}");
            assert!(
                metrics.lines().any(|known| known == line),
                "{line}\n{metrics}"
            );
        }
    }
}

#[tokio::test]
async fn a_queue_is_a_topic_and_a_subscription_of_the_native_api() {
    let door = door().await;
    let [place, _] = door.places();
    place.publish(&[json!("text")]).await;
    place.pull(&place.queue("")).await;

    let topic = door
        .app
        .get("/topics/broker%2Fqueues%2Fmounted")
        .await
        .expect(200)
        .json();
    assert_eq!(topic["id"], "broker/queues/mounted");
    let metrics = door
        .app
        .get("/subscriptions/broker%2Fqueues%2Fmounted/metrics")
        .await;
    assert_eq!(metrics.expect(200).json()["delivered"], 1);
    let message = json!({"messages": [{"payload": {"native": true}}]});
    let path = "/topics/broker%2Fqueues%2Fmounted/publish";
    door.app.post(path, message).await.expect(201);
    assert_eq!(
        place.pull(&place.queue("")).await["message"],
        json!({"native": true})
    );
}

#[tokio::test]
async fn a_database_that_is_away_is_503_with_a_time_to_come_back() {
    let database = TestDatabase::create().await;
    let flags = ["--broker-api-key", KEY, "--broker-listen", "127.0.0.1:0"];
    let door = Door {
        app: TestApp::start_on(database.share(), &flags).await,
    };
    drop(database);

    for place in door.places() {
        let body = json!({"message": 1});
        let refused = place.post(&place.queue("/publish"), body).await.expect(503);
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert!(refused.json()["error"].is_string());
        for path in ["/health", "/stats"] {
            open(&place, path).await.expect(503);
        }
        let refused: Value = place.get(&place.queue("/peek")).await.expect(503).json();
        assert!(refused["error"].is_string());
    }
}
