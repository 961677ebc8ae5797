//! Adding and changing messages.

use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{KEY, door, door_with, handle, list};

#[tokio::test]
async fn a_message_has_its_id_or_a_uuid_and_a_text_becomes_an_object() {
    let door = door().await;
    for place in door.places() {
        let added = place
            .post(
                "messages",
                json!({"id": "m 1/ä", "message_body": {"a": [1, null]}, "timestamp": "now", "more": 1}),
            )
            .await;
        assert_eq!(
            added.expect(200).json(),
            json!({"id": "m 1/ä", "status": "success", "receipt_handle": null})
        );
        for body in [
            json!({"message_body": "text"}),
            json!({"id": null, "message": "older clients", "timestamp": "2026-11-20T15:12:26.887067"}),
            json!({"message_body": null, "message": {"older": true}}),
        ] {
            let added = place.post("messages", body).await.expect(200).json();
            let id: Uuid = added["id"].as_str().unwrap().parse().unwrap();
            assert_eq!(id.get_version_num(), 4);
        }

        let bodies: Vec<Value> = list(&place.get("messages").await.json())
            .into_iter()
            .map(|message| message["message_body"].clone())
            .collect();
        assert_eq!(
            bodies,
            [
                json!({"a": [1, null]}),
                json!({"content": "text"}),
                json!({"content": "older clients"}),
                json!({"older": true}),
            ]
        );
    }
}

#[tokio::test]
async fn an_id_is_in_a_queue_once_until_its_message_is_deleted() {
    let door = door().await;
    for place in door.places() {
        let first = json!({"id": "m1", "message_body": {"n": 1}});
        let second = json!({"id": "m1", "message_body": {"n": 2}});
        let answered = place.post("messages", first.clone()).await.expect(200).body;
        let again = place.post("messages", second.clone()).await.expect(200);
        assert_eq!(again.body, answered);
        assert_eq!(place.state().await, (vec!["m1".to_owned()], 0));

        let received = place.receive("").await;
        assert_eq!(received[0]["message_body"], json!({"n": 1}));
        place.post("messages", second.clone()).await.expect(200);
        assert_eq!(place.state().await, (vec![], 1));

        let path = format!("messages/{}", handle(&received[0]));
        place.delete(&path).await.expect(200);
        place.post("messages", second).await.expect(200);
        let received = place.receive("").await;
        assert_eq!(received[0]["message_body"], json!({"n": 2}));
        assert_eq!(received[0]["receive_count"], 1);

        let elsewhere = format!("/api/v1/queues/{}-other/messages", place.queue);
        place
            .send(KEY, "POST", &elsewhere, Some(first))
            .await
            .expect(200);
        let page = place.send(KEY, "GET", &elsewhere, None).await.json();
        assert_eq!(page["total"], 1);
    }
}

#[tokio::test]
async fn of_several_adds_of_one_id_at_once_one_is_stored() {
    let door = door().await;
    let place = &door.places()[0];
    let adds = (0..24).map(|n| async move {
        let body = json!({"id": format!("m{}", n % 3), "message_body": {"n": n}});
        place.post("messages", body).await.expect(200);
    });
    join_all(adds).await;

    let (mut available, in_flight) = place.state().await;
    available.sort();

    assert_eq!(
        (available, in_flight),
        (vec!["m0".into(), "m1".into(), "m2".into()], 0)
    );
}

#[tokio::test]
async fn a_bad_message_is_refused_with_its_place_and_nothing_is_added() {
    let door = door().await;
    for place in door.places() {
        for (body, at, kind) in [
            (json!({}), "message_body", "missing"),
            (json!({"message_body": null}), "message_body", "missing"),
            (json!({"message_body": 5}), "message_body", "dict_type"),
            (json!({"message": [1]}), "message", "dict_type"),
            (
                json!({"message_body": "a\u{0}b"}),
                "message_body",
                "value_error",
            ),
            (
                json!({"message_body": {"a\u{0}": 1}}),
                "message_body",
                "value_error",
            ),
            (
                json!({"id": "", "message_body": {}}),
                "id",
                "string_too_short",
            ),
            (
                json!({"id": "x".repeat(257), "message_body": {}}),
                "id",
                "string_too_long",
            ),
            (json!({"id": 5, "message_body": {}}), "id", "string_type"),
            (
                json!({"id": "a\u{0}", "message_body": {}}),
                "id",
                "value_error",
            ),
        ] {
            let refused = place
                .post("messages", body.clone())
                .await
                .expect(422)
                .json();
            let fault = &refused["detail"][0];
            assert_eq!(fault["loc"], json!(["body", at]), "{body}");
            assert_eq!(fault["type"], kind, "{body}");
        }
        for (text, kind) in [
            ("{", "json_invalid"),
            ("[]", "model_attributes_type"),
            ("", "missing"),
        ] {
            let request = place
                .request("POST", &place.path("messages"))
                .header("X-API-Key", KEY)
                .header("Content-Type", "application/json")
                .body(text);
            let refused = place.tell(request).await.expect(422).json();
            assert_eq!(refused["detail"][0]["type"], kind, "{text}");
        }
        assert_eq!(place.state().await, (vec![], 0));
    }
}

#[tokio::test]
async fn a_message_survives_as_it_is_up_to_the_limit() {
    let door = door().await;
    for place in door.places() {
        let text = "ä😀\"\\\n\u{1}".repeat(11_000);
        let body = json!({"id": "large", "message_body": {"t": text}});
        place.post("messages", body).await.expect(200);
        let message = place.get("message/large").await.expect(200).json();
        assert_eq!(message["message_body"]["t"], text);

        let body = json!({"message_body": "x".repeat(262_145 - r#"{"content":""}"#.len())});
        let refused = place.post("messages", body).await.expect(413).json();
        assert_eq!(
            refused["detail"],
            "the message has 262145 bytes, the limit is 262144 \
             (FASTPUBSUB_PYQUEUE_MAX_MESSAGE_SIZE)"
        );
    }
    let door = door_with(&["--pyqueue-max-message-size", "20"]).await;
    let place = &door.places()[0];
    place
        .post("messages", json!({"message_body": {"a": 1}}))
        .await
        .expect(200);
    place
        .post("messages", json!({"message_body": "123456789"}))
        .await
        .expect(413);
}

#[tokio::test]
async fn an_update_changes_what_a_message_holds_and_nothing_else() {
    let door = door().await;
    for place in door.places() {
        place.add(&["a", "b", "c"]).await;
        let received = place
            .receive("?max_messages=1&visibility_timeout=100")
            .await;
        for id in ["a", "b"] {
            let path = format!("messages/by-id/{id}");
            let body = json!({"id": 5, "message_body": {"new": id}});
            let updated = place.put(&path, body).await.expect(200).json();
            let done = json!({"status": "success", "message": "Message updated"});
            assert_eq!(updated, done);
        }

        let mut held = place.get("message/a").await.json();
        assert_eq!(held["message_body"], json!({"new": "a"}));
        held["message_body"] = json!({"n": "a"});
        assert_eq!(held, received[0]);
        let (available, in_flight) = place.state().await;
        assert_eq!((available, in_flight), (vec!["b".into(), "c".into()], 1));
        let next = place.receive("?max_messages=1").await;
        assert_eq!(next[0]["message_body"], json!({"new": "b"}));
        place
            .delete(&format!("messages/{}", handle(&held)))
            .await
            .expect(200);

        let missing = json!({"detail": "Message not found"});
        let body = json!({"message_body": {}});
        for path in ["messages/by-id/a", "messages/by-id/never"] {
            let refused = place.put(path, body.clone()).await.expect(404);
            assert_eq!(refused.json(), missing);
        }
        place
            .put("messages/by-id/b", json!({"id": "b"}))
            .await
            .expect(422);
    }
}
