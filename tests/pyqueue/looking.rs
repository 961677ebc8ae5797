//! Looking at messages and queues.

use serde_json::{Value, json};

use super::{KEY, door, handle, ids, list};

#[tokio::test]
async fn a_page_shows_available_messages_and_takes_none() {
    let door = door().await;
    for place in door.places() {
        place.add(&["a", "b", "c", "d", "e"]).await;
        place.receive("?max_messages=1").await;
        for (query, expected, more) in [
            ("limit=2", &["b", "c"][..], true),
            ("max_messages=3", &["b", "c", "d"], true),
            ("limit=2&max_messages=4&offset=2", &["d", "e"], false),
            ("offset=4", &[], false),
            ("", &["b", "c", "d", "e"], false),
        ] {
            let page = place
                .get(&format!("messages?{query}"))
                .await
                .expect(200)
                .json();
            assert_eq!(ids(&list(&page)), expected, "{query}");
            assert_eq!(page["count"], expected.len(), "{query}");
            assert_eq!(page["total"], 4, "{query}");
            assert_eq!(page["has_more"], more, "{query}");
        }
        let page = place.get("messages?limit=1&offset=1").await.json();
        assert_eq!((&page["limit"], &page["offset"]), (&json!(1), &json!(1)));
        let message = &list(&page)[0];
        assert_eq!(message["receive_count"], 0);
        for (query, name) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("max_messages=x", "max_messages"),
            ("offset=-1", "offset"),
        ] {
            let refused = place
                .get(&format!("messages?{query}"))
                .await
                .expect(422)
                .json();
            assert_eq!(
                refused["detail"][0]["loc"],
                json!(["query", name]),
                "{query}"
            );
        }
        assert_eq!(ids(&place.receive("").await), ["b", "c", "d", "e"]);
    }
}

#[tokio::test]
async fn one_message_is_shown_in_any_state() {
    let door = door().await;
    for place in door.places() {
        place.add(&["a", "b"]).await;
        let received = place.receive("?max_messages=1").await;

        assert_eq!(place.get("message/a").await.expect(200).json(), received[0]);
        let available = place.get("message/b").await.expect(200).json();
        assert_eq!(available["status"], "available");
        assert_eq!(available["receipt_handle"], Value::Null);
        for absent in ["message/c", "message/%00", "message/a%2Fb"] {
            let refused = place.get(absent).await.expect(404).json();
            assert_eq!(refused, json!({"detail": "Message not found"}), "{absent}");
        }
    }
}

#[tokio::test]
async fn ids_that_are_there_are_told_in_the_order_asked() {
    let door = door().await;
    for place in door.places() {
        let ask = |ids: Value| place.post("messages/check-existence", json!({"message_ids": ids}));
        let none = ask(json!(["a"])).await.expect(200).json();
        assert_eq!(none, json!({"existing_ids": []}));
        place.add(&["a", "b", "c"]).await;
        let received = place.receive("?max_messages=1").await;
        place.delete("messages/by-id/b").await.expect(200);

        let there = ask(json!(["c", "x", "b", "a", "\u{0}", "c"]))
            .await
            .expect(200)
            .json();
        assert_eq!(there, json!({"existing_ids": ["c", "a", "c"]}));
        place
            .delete(&format!("messages/{}", handle(&received[0])))
            .await
            .expect(200);
        assert_eq!(ask(json!(["a"])).await.json(), json!({"existing_ids": []}));
        let many: Vec<String> = (0..10_000).map(|n| format!("m{n}")).collect();
        ask(json!(many)).await.expect(200);
        let too_many: Vec<&str> = vec!["m"; 10_001];
        for (ids, kind) in [
            (json!(too_many), "too_long"),
            (json!("a"), "list_type"),
            (json!([1]), "string_type"),
        ] {
            let refused = ask(ids).await.expect(422).json();
            assert_eq!(refused["detail"][0]["type"], kind);
        }
        place
            .post("messages/check-existence", json!({}))
            .await
            .expect(422);
    }
}

#[tokio::test]
async fn the_info_of_a_queue_counts_its_messages_and_that_of_an_absent_one_is_zero() {
    let door = door().await;
    for place in door.places() {
        let absent = place.get("info").await.expect(200).json();
        assert_eq!(
            absent,
            json!({
                "queue_name": place.queue, "message_count": 0, "available_messages": 0,
                "in_flight_messages": 0, "queue_size_bytes": 0, "created_timestamp": null,
                "last_modified": null,
            })
        );
        let page = place.get("messages").await.expect(200).json();
        assert_eq!((&page["messages"], &page["total"]), (&json!([]), &json!(0)));

        place.add(&["a", "b", "c"]).await;
        place.receive("?max_messages=1").await;

        let info = place.get("info").await.expect(200).json();
        for (name, count) in [
            ("message_count", 3),
            ("available_messages", 2),
            ("in_flight_messages", 1),
        ] {
            assert_eq!(info[name], count, "{name}");
        }
        assert!(info["queue_size_bytes"].as_i64().unwrap() >= 30);
        let time = |name: &str| {
            chrono::DateTime::parse_from_rfc3339(info[name].as_str().unwrap()).unwrap()
        };
        assert!(time("created_timestamp") <= time("last_modified"));
        let healthy = place.get("health").await.expect(200).json();
        assert_eq!(healthy["status"], "healthy");
        assert_eq!(healthy["queue_name"], place.queue);
    }
}

#[tokio::test]
async fn the_queues_of_a_key_are_listed_with_what_it_may_do() {
    let door = door().await;
    let [place, _] = door.places();
    let list_of = async |key: &str| {
        let answer = place.send(key, "GET", "/api/v1/queues", None).await;
        answer.expect(200).json()
    };
    let zeros = |queue: &str, permissions: Value| {
        json!({
            "queue_name": queue, "message_count": 0, "available_messages": 0,
            "in_flight_messages": 0, "permissions": permissions,
        })
    };
    assert_eq!(
        list_of(KEY).await,
        json!({"queues": [], "count": 0, "api_key_description": "operator"})
    );
    let named = [zeros("mails", json!([])), zeros("orders", json!(["read"]))];
    assert_eq!(list_of("key-of-a-reader").await["queues"], json!(named));

    for queue in ["orders", "other"] {
        let path = format!("/api/v1/queues/{queue}/messages");
        let body = json!({"id": "m", "message_body": {}});
        place.send(KEY, "POST", &path, Some(body)).await.expect(200);
    }
    let path = "/api/v1/queues/orders/messages/by-id/m";
    place.send(KEY, "DELETE", path, None).await.expect(200);

    let all = list_of(KEY).await;
    let everything = json!(["read", "write", "delete", "manage"]);
    assert_eq!(all["count"], 2);
    assert_eq!(all["queues"][0], zeros("orders", everything));
    assert_eq!(all["queues"][1]["available_messages"], 1);
    assert_eq!(list_of("key-of-a-reader").await["count"], 2);
    assert_eq!(
        list_of("key-of-two-minds").await["queues"][1]["permissions"],
        json!(["read"])
    );
}
