//! What is around the queues: pages, unknown paths, other origins, metrics.

use serde_json::json;

use super::{Door, KEY, KEYS, Place, door, door_with};
use crate::support::database::TestDatabase;
use crate::support::{Answer, TestApp, answer, answer_of};

/// Whatever is documented.
async fn open(place: &Place<'_>, path: &str) -> Answer {
    let (client, request) = place.request("GET", path).build_split();
    answer_of(client, request.unwrap()).await
}

#[tokio::test]
async fn some_pages_need_no_key() {
    let door = door().await;
    for place in door.places() {
        let up = open(&place, "/health").await.expect(200).json();
        assert_eq!(
            up,
            json!({"status": "healthy", "service": "pyqueue-server"})
        );
        let health = open(&place, "/api/v1/health").await.expect(200).json();
        assert_eq!(
            (&health["status"], &health["queue_name"]),
            (&json!("healthy"), &json!(null))
        );
        let card = open(&place, "/").await.expect(200).json();
        assert_eq!(card["version"], env!("CARGO_PKG_VERSION"));
        for page in ["/docs", "/redoc"] {
            let page = open(&place, page).await.expect(200);
            assert!(
                page.header("content-type")
                    .unwrap()
                    .starts_with("text/html")
            );
            assert!(!page.body.contains("https://"), "{}", page.body);
        }
        open(&place, "/docs/swagger-ui.css").await.expect(200);
        let document = open(&place, "/openapi.json").await.expect(200).json();
        let paths = document["paths"].as_object().unwrap();
        assert!(
            paths.contains_key("/api/v1/queues/{queue_name}/messages/receive"),
            "{paths:?}"
        );
        assert_eq!(document["servers"][0]["url"], "./");
    }
    // without the slash, too
    let [mounted, _] = door.places();
    assert_eq!(
        open(&mounted, "").await.expect(200).body,
        open(&mounted, "/").await.body
    );
}

#[tokio::test]
async fn what_is_no_route_is_told_as_fastapi_does() {
    let door = door().await;
    for place in door.places() {
        for path in [
            "/nothing",
            "/api/v1/nothing",
            "/api/v1/queues/q/nothing",
            "/api/v2/queues",
        ] {
            let refused = open(&place, path).await.expect(404);
            assert_eq!(refused.json(), json!({"detail": "Not Found"}), "{path}");
        }
        let path = place.path("messages/receive");
        let refused = place.send(KEY, "PATCH", &path, None).await.expect(405);
        assert_eq!(refused.json(), json!({"detail": "Method Not Allowed"}));
    }
    // the native door is not behind this one
    let [_, alone] = door.places();
    for path in ["/topics", "/liveness", "/pyqueue/health"] {
        open(&alone, path).await.expect(404);
    }
}

#[tokio::test]
async fn pages_of_any_origin_may_call_it_with_credentials() {
    let door = door().await;
    for place in door.places() {
        let preflight = place
            .request("OPTIONS", &place.path("messages"))
            .header("Origin", "https://shop.example")
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "x-api-key");
        let allowed = place.tell(preflight).await.expect(200);
        let origin = Some("https://shop.example");
        assert_eq!(allowed.header("access-control-allow-origin"), origin);
        assert_eq!(
            allowed.header("access-control-allow-credentials"),
            Some("true")
        );
        assert_eq!(
            allowed.header("access-control-allow-headers"),
            Some("x-api-key")
        );

        let request = place
            .request("GET", &place.path("messages"))
            .header("Origin", "https://shop.example");
        let refused = place.tell(request).await.expect(422);
        assert_eq!(refused.header("access-control-allow-origin"), origin);
    }
    // which does not open the native door
    let native = reqwest::Client::new()
        .get(format!("{}/topics", door.app.url))
        .header("Origin", "https://shop.example");
    let answered = answer(native).await.expect(200);
    assert_eq!(answered.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn what_happens_in_a_queue_is_counted() {
    let door = door().await;
    for place in door.places() {
        let queue = format!("{}-{}", place.queue, uuid::Uuid::now_v7().simple());
        let place = Place { queue, ..place };
        place.add(&["a", "b", "c", "d"]).await;
        place.add(&["a"]).await;
        let received = place.receive("?max_messages=1").await;
        place
            .receive("?max_messages=2&delete_after_receive=true")
            .await;
        place
            .delete(&format!("messages/{}", super::handle(&received[0])))
            .await
            .expect(200);
        place.delete("messages/by-id/d").await.expect(200);

        let metrics = open(&place, "/metrics").await.expect(200).body;
        for (name, count) in [("added", 4), ("received", 3), ("deleted", 4)] {
            let queue = &place.queue;
            let line = format!("pyqueue_messages_{name}_total{{queue=\"{queue}\"}} {count}");
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
    place.add(&["a"]).await;
    place.receive("").await;

    let topic = door
        .app
        .get("/topics/pyqueue%2Fmounted")
        .await
        .expect(200)
        .json();
    assert_eq!(topic["id"], "pyqueue/mounted");
    let subscription = door
        .app
        .get("/subscriptions/pyqueue%2Fmounted/metrics")
        .await;
    assert_eq!(subscription.expect(200).json()["delivered"], 1);
    let message = json!({"messages": [{"payload": {"native": true}}]});
    door.app
        .post("/topics/pyqueue%2Fmounted/publish", message)
        .await
        .expect(201);
    let received = place.receive("").await;
    assert_eq!(received[0]["message_body"], json!({"native": true}));
    // what has no id of a client's has its own
    let id: uuid::Uuid = super::id(&received[0]).parse().unwrap();
    assert_eq!(id.get_version_num(), 7);
}

/// The subscription may be deleted natively, and the topic be there.
#[tokio::test]
async fn what_is_added_is_in_the_queue_whatever_was_deleted_natively() {
    let door = door().await;
    let [place, _] = door.places();
    place.add(&["a"]).await;
    for path in [
        "/subscriptions/pyqueue%2Fmounted",
        "/topics/pyqueue%2Fmounted",
    ] {
        door.app.delete(path).await.expect(204);
        place.add(&["b", "c", "b"]).await;
        assert_eq!(
            place.state().await,
            (vec!["b".into(), "c".into()], 0),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_prefix_of_the_api_is_a_setting() {
    let door = door_with(&["--pyqueue-api-v1-prefix", "/v9/"]).await;
    for place in door.places() {
        place.send(KEY, "GET", "/v9/queues", None).await.expect(200);
        open(&place, "/api/v1/queues").await.expect(404);
        let document = open(&place, "/openapi.json").await.json();
        assert!(
            document["paths"]
                .as_object()
                .unwrap()
                .contains_key("/v9/queues")
        );
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_503_with_a_time_to_come_back() {
    let database = TestDatabase::create().await;
    let flags = [
        "--pyqueue-api-keys-json",
        KEYS,
        "--pyqueue-listen",
        "127.0.0.1:0",
    ];
    let door = Door {
        app: TestApp::start_on(database.share(), &flags).await,
    };
    drop(database);

    for place in door.places() {
        let message = json!({"message_body": {}});
        place.post("messages", message).await.expect(503);
        for rest in ["health", "info", "messages", "message/m"] {
            let refused = place.get(rest).await.expect(503);
            assert_eq!(refused.header("retry-after"), Some("1"), "{rest}");
            assert!(refused.json()["detail"].is_string());
        }
        open(&place, "/health").await.expect(200);
        open(&place, "/api/v1/health").await.expect(503);
    }
}
