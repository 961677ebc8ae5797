//! What is around messages: pages, unknown paths, metrics, the native API.

use serde_json::{Value, json};

use super::{door, until};

#[tokio::test]
async fn the_service_says_how_it_is_at_both_places() {
    let door = door().await;
    for place in door.places() {
        let health = place.get("/health").await.expect(200).json();
        assert_eq!(health["status"], "healthy");
        assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
        assert!(health["timestamp"].as_str().unwrap().ends_with('Z'));
        let ready = json!({"ready": true, "checks": {"storage": "ok"}});
        assert_eq!(place.get("/ready").await.expect(200).json(), ready);
        for page in ["/docs", "/redoc"] {
            let page = place.get(page).await.expect(200);
            assert!(!page.body.contains("https://"), "{}", page.body);
        }
        let document = place.get("/openapi.json").await.expect(200).json();
        let paths = document["paths"].as_object().unwrap();
        for path in [
            "/api/v1/messages",
            "/api/v1/messages/bulk",
            "/api/v1/messages/poll",
            "/ws",
        ] {
            assert!(paths.contains_key(path), "{path}");
        }
        let metrics = place.get("/metrics").await.expect(200);
        assert!(
            metrics
                .header("content-type")
                .unwrap()
                .starts_with("text/plain")
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
            "/api/v1/messages/bulk/x",
            "/topics",
        ] {
            let refused = place.get(path).await.expect(404).json();
            assert_eq!(refused, json!({"detail": "Not Found"}), "{path}");
        }
        for (method, path) in [
            ("GET", "/api/v1/messages"),
            ("POST", "/health"),
            ("PUT", "/ws"),
        ] {
            let refused = place.answer(place.request(method, path)).await.expect(405);
            assert_eq!(refused.json(), json!({"detail": "Method Not Allowed"}));
        }
    }
}

/// The value of a line of metrics.
fn value(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok())
}

#[tokio::test]
async fn what_happens_is_counted_under_the_proxy_s_names() {
    let door = door().await;
    for place in door.places() {
        let names = place.get("/metrics").await.expect(200).body;
        for name in [
            "proxy_messages_received_total{topic=\"other\"} 0",
            "proxy_messages_delivered_total{topic=\"other\",delivery_type=\"websocket\"} 0",
            "proxy_messages_delivered_total{topic=\"other\",delivery_type=\"long_poll\"} 0",
            "proxy_message_latency_seconds_bucket{topic=\"other\",le=\"0.001\"} 0",
            "proxy_message_latency_seconds_bucket{topic=\"other\",le=\"10\"} 0",
            "proxy_websocket_connections_active 0",
            "proxy_websocket_connections_total ",
            "proxy_websocket_disconnections_total ",
            "proxy_acks_total ",
            "proxy_topic_message_count{topic=\"other\"} 0",
            "proxy_errors_total{type=\"websocket\",code=\"PROCESSING_ERROR\"} ",
        ] {
            assert!(names.contains(name), "{name}\n{names}");
        }
        let topic = place.topic.as_str();
        let mut one = place.subscribe(&[topic], "last").await;
        let mut two = place.subscribe(&[topic], "last").await;
        let errors = "proxy_errors_total{type=\"websocket\",code=\"UNKNOWN_MESSAGE_TYPE\"}";
        let before = value(&names, errors).unwrap_or_default();
        one.ask(&json!({"type": "dance"})).await;
        let ids = place.send_numbers(0..3).await;
        let bulk = json!({"messages": [{"topic": topic, "payload": {"n": 3}}]});
        place.post("/api/v1/messages/bulk", &bulk).await.expect(207);
        let path = format!(
            "/api/v1/messages/poll?topics={topic}&after={}",
            ids[1].as_str().unwrap()
        );
        place.get(&path).await.expect(200);
        for socket in [&mut one, &mut two] {
            assert_eq!(socket.numbers(4).await, [0, 1, 2, 3]);
            socket
                .say(&json!({"type": "ack", "message_id": ids[0]}))
                .await;
            socket.hears_nothing().await;
        }
        let label = format!("topic=\"{topic}\"");
        let shown = async || place.get("/metrics").await.expect(200).body;
        let metrics = shown().await;
        for (name, expected) in [
            (format!("proxy_messages_received_total{{{label}}}"), 4.0),
            (
                format!("proxy_messages_delivered_total{{{label},delivery_type=\"websocket\"}}"),
                8.0,
            ),
            (
                format!("proxy_messages_delivered_total{{{label},delivery_type=\"long_poll\"}}"),
                2.0,
            ),
            (
                format!("proxy_message_latency_seconds_count{{{label}}}"),
                4.0,
            ),
            ("proxy_websocket_connections_active".to_owned(), 2.0),
            (format!("proxy_topic_message_count{{{label}}}"), 4.0),
            (errors.to_owned(), before + 1.0),
        ] {
            assert_eq!(value(&metrics, &name), Some(expected), "{name}\n{metrics}");
        }
        assert!(value(&metrics, "proxy_acks_total").unwrap() >= 2.0);
        drop((one, two));
        until(async || value(&shown().await, "proxy_websocket_connections_active") == Some(0.0))
            .await;
    }
}

#[tokio::test]
async fn topics_are_values_of_an_attribute_of_one_topic_of_the_native_api() {
    let door = door().await;
    let [place, _] = door.places();
    place.send(&place.topic, json!({"n": 0})).await;
    let filter = json!({"attributes": {"pulsar/topic": [place.topic]}});
    let subscription = json!({"id": "s", "topic_id": "pulsar", "filter": filter});
    door.app
        .post("/subscriptions", subscription)
        .await
        .expect(201);
    let mut socket = place.subscribe(&[&place.topic], "last").await;
    let body = json!({"topic": place.topic, "payload": {"n": 1}, "metadata": {"a": "b"}});
    place.post("/api/v1/messages", &body).await.expect(201);
    place.send("other", json!({"n": 2})).await;
    let messages = door.app.consume("s").await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["payload"], json!({"n": 1}));

    let message = json!({"payload": {"n": 3}, "ordering_key": place.topic,
        "attributes": {"pulsar/topic": place.topic}});
    let body = json!({"messages": [message, {"payload": {"n": 4}}]});
    door.app
        .post("/topics/pulsar/publish", body)
        .await
        .expect(201);
    assert_eq!(socket.numbers(2).await, [1, 3]);
    let topic: Value = door.app.get("/topics/pulsar").await.expect(200).json();
    assert_eq!(topic["message_retention_seconds"], 600);
}

#[tokio::test]
async fn the_retention_of_the_settings_holds_for_the_topic_that_there_is() {
    let door = door().await;
    let [place, _] = door.places();
    place.send("a", json!({})).await;
    let flags = ["--pulsar-hot-tier-retention", "77"];
    let restarted = crate::support::TestApp::start_on(door.app.database.share(), &flags).await;
    let topic: Value = restarted.get("/topics/pulsar").await.expect(200).json();
    assert_eq!(topic["message_retention_seconds"], 77);
}
