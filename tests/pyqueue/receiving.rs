//! Receiving messages.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Door, KEY, door, door_with, handle, id, ids, list};
use crate::support::TestApp;

#[tokio::test]
async fn messages_are_received_first_in_first_out_and_are_hidden_from_others() {
    let door = door().await;
    for place in door.places() {
        place.add(&["a", "b", "c"]).await;
        let path = place.path("messages/receive?max_messages=2&visibility_timeout=77");
        let page = place
            .send(KEY, "POST", &path, Some(Value::Null))
            .await
            .expect(200)
            .json();

        let messages = list(&page);
        assert_eq!(ids(&messages), ["a", "b"]);
        for (name, value) in [
            ("count", json!(2)),
            ("total", json!(2)),
            ("offset", json!(0)),
            ("limit", json!(2)),
            ("has_more", json!(true)),
        ] {
            assert_eq!(page[name], value, "{name}");
        }
        let first = &messages[0];
        assert_eq!(first["status"], "in_flight");
        assert_eq!(first["receive_count"], 1);
        assert_eq!(first["message_body"], json!({"n": "a"}));
        let url_safe = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        assert!(handle(first).chars().all(url_safe));
        let time = |name: &str| {
            let text = first[name].as_str().unwrap();
            assert!(text.ends_with("+00:00"), "{text}");
            chrono::DateTime::parse_from_rfc3339(text).unwrap()
        };
        let hidden = time("visibility_timeout") - time("timestamp");
        assert!((77..90).contains(&hidden.num_seconds()), "{hidden}");

        assert_eq!(ids(&place.receive("").await), ["c"]);
        let page = place
            .send(KEY, "POST", &path, None)
            .await
            .expect(200)
            .json();
        assert_eq!(
            (&page["count"], &page["has_more"]),
            (&json!(0), &json!(false))
        );
        assert_eq!(place.state().await, (vec![], 3));
    }
}

#[tokio::test]
async fn what_is_not_deleted_in_time_is_available_again_with_a_new_handle() {
    let door = door().await;
    for place in door.places() {
        place.add(&["a", "b"]).await;
        let first = place.receive("?visibility_timeout=30").await;
        door.app.pass_seconds(31.0).await;

        let page = list(&place.get("messages").await.json());
        assert_eq!(ids(&page), ["a", "b"]);
        let seen = [
            &page[0]["status"],
            &page[0]["receipt_handle"],
            &page[0]["visibility_timeout"],
        ];
        assert_eq!(seen, [&json!("available"), &Value::Null, &Value::Null]);
        assert_eq!(place.state().await.1, 0);
        // until it is received again the old handle deletes
        place
            .delete(&format!("messages/{}", handle(&first[1])))
            .await
            .expect(200);

        let second = place.receive("").await;
        assert_eq!(ids(&second), ["a"]);
        assert_eq!(second[0]["receive_count"], 2);
        assert_ne!(handle(&second[0]), handle(&first[0]));
        let late = place
            .delete(&format!("messages/{}", handle(&first[0])))
            .await;
        assert_eq!(
            late.expect(404).json(),
            json!({"detail": "Message not found"})
        );
        assert_eq!(place.state().await, (vec![], 1));
    }
}

#[tokio::test]
async fn only_new_and_the_consumer_s_own_history_leave_out_what_was_received() {
    let door = door().await;
    for place in door.places() {
        place.add(&["a", "b", "c"]).await;
        let held = place
            .receive("?max_messages=1&consumer_id=one&visibility_timeout=30")
            .await;
        assert_eq!(ids(&held), ["a"]);
        let held = place
            .receive("?max_messages=1&consumer_id=two&visibility_timeout=30")
            .await;
        assert_eq!(ids(&held), ["b"]);
        door.app.pass_seconds(31.0).await;

        // the history of one is not that of two
        assert_eq!(
            ids(&place.receive("?max_messages=1&consumer_id=two").await),
            ["a"]
        );
        assert_eq!(
            ids(&place.receive("?only_new=true&consumer_id=one").await),
            ["c"]
        );
        door.app.pass_seconds(31.0).await;
        assert_eq!(ids(&place.receive("?only_new=true").await), [""; 0]);
        assert_eq!(ids(&place.receive("?consumer_id=two").await), ["c"]);
        assert_eq!(ids(&place.receive("?consumer_id=two").await), [""; 0]);
        assert_eq!(ids(&place.receive("?consumer_id=one").await), ["b"]);
        assert_eq!(ids(&place.receive("?consumer_id=three").await), ["a"]);
        door.app.pass_seconds(31.0).await;
        assert_eq!(ids(&place.receive("").await), ["a", "b", "c"]);
    }
}

#[tokio::test]
async fn delete_after_receive_deletes_exactly_what_it_returns() {
    let door = door().await;
    for place in door.places() {
        place.add(&["a", "b", "c", "d"]).await;
        let held = place.receive("?max_messages=1&visibility_timeout=30").await;
        assert_eq!(ids(&held), ["a"]);
        let taken = place
            .receive("?max_messages=2&delete_after_receive=true")
            .await;

        assert_eq!(ids(&taken), ["b", "c"]);
        for message in &taken {
            assert_eq!(message["status"], "processed");
            assert_eq!(message["receipt_handle"], Value::Null);
            assert_eq!(message["visibility_timeout"], Value::Null);
            assert_eq!(message["receive_count"], 1);
        }
        assert_eq!(place.state().await, (vec!["d".into()], 1));
        place.get("message/b").await.expect(404);
        door.app.pass_seconds(31.0).await;
        let rest = place
            .receive("?delete_after_receive=1&only_new=true&consumer_id=x")
            .await;
        assert_eq!(ids(&rest), ["d"]);
        assert_eq!(place.state().await, (vec!["a".into()], 0));
    }
}

#[tokio::test]
async fn takes_of_many_at_once_return_each_message_once() {
    let door = door().await;
    let place = &door.places()[0];
    let names: Vec<String> = (0..60).map(|n| format!("m{n}")).collect();
    for name in &names {
        place.add(&[name]).await;
    }
    let takes = (0..10).map(|_| place.receive("?max_messages=7&delete_after_receive=true"));
    let mut taken: Vec<String> = join_all(takes).await.iter().flatten().map(id).collect();
    loop {
        let more = place.receive("?delete_after_receive=true").await;
        if more.is_empty() {
            break;
        }
        taken.extend(ids(&more));
    }

    let once: BTreeSet<&String> = taken.iter().collect();
    assert_eq!((taken.len(), once.len()), (60, 60));
    assert_eq!(place.state().await, (vec![], 0));
}

#[tokio::test]
async fn receivers_of_two_servers_never_hold_one_message_at_a_time() {
    let door = door().await;
    let other = Door {
        app: TestApp::start_on(
            door.app.database.share(),
            &[
                "--pyqueue-api-keys-json",
                super::KEYS,
                "--pyqueue-listen",
                "127.0.0.1:0",
            ],
        )
        .await,
    };
    let (here, there) = (&door.places()[0], &other.places()[1]);
    let there = &super::Place {
        door: there.door,
        url: there.url.clone(),
        queue: here.queue.clone(),
    };
    for n in 0..40 {
        here.add(&[&format!("m{n}")]).await;
    }

    let receives =
        (0..12).map(|n| if n % 2 == 0 { here } else { there }.receive("?max_messages=4"));
    let received: Vec<String> = join_all(receives).await.iter().flatten().map(id).collect();

    let once: BTreeSet<&String> = received.iter().collect();
    assert_eq!(once.len(), received.len());
    assert_eq!(here.state().await.1, i64::try_from(received.len()).unwrap());
}

#[tokio::test]
async fn what_a_receive_cannot_be_is_told_and_an_absent_queue_is_empty() {
    let door = door().await;
    for place in door.places() {
        for (query, name, kind) in [
            ("max_messages=0", "max_messages", "greater_than_equal"),
            ("max_messages=101", "max_messages", "less_than_equal"),
            ("max_messages=x", "max_messages", "int_parsing"),
            (
                "visibility_timeout=0",
                "visibility_timeout",
                "greater_than_equal",
            ),
            (
                "visibility_timeout=43201",
                "visibility_timeout",
                "less_than_equal",
            ),
            ("consumer_id=", "consumer_id", "string_too_short"),
            ("consumer_id=%00", "consumer_id", "value_error"),
            ("only_new=perhaps", "only_new", "bool_parsing"),
            (
                "delete_after_receive=2",
                "delete_after_receive",
                "bool_parsing",
            ),
        ] {
            let path = place.path(&format!("messages/receive?{query}"));
            let refused = place
                .send(KEY, "POST", &path, None)
                .await
                .expect(422)
                .json();
            assert_eq!(
                refused["detail"][0]["loc"],
                json!(["query", name]),
                "{query}"
            );
            assert_eq!(refused["detail"][0]["type"], kind, "{query}");
        }
        assert_eq!(place.receive("?delete_after_receive=true").await, [""; 0]);
        assert_eq!(place.receive("?unknown=1").await, [""; 0]);
        let queues = place.send(KEY, "GET", "/api/v1/queues", None).await.json();
        assert_eq!(queues["count"], 0);
    }
}

#[tokio::test]
async fn a_message_received_too_often_becomes_a_dead_letter() {
    let door = door_with(&["--pyqueue-max-receive-count", "2"]).await;
    for place in door.places() {
        place.add(&["a"]).await;
        for count in [1, 2] {
            assert_eq!(
                place.receive("?visibility_timeout=30").await[0]["receive_count"],
                count
            );
            door.app.pass_seconds(31.0).await;
        }

        assert_eq!(place.receive("").await, [""; 0]);
        assert_eq!(place.state().await, (vec![], 0));
        let path = format!("/subscriptions/pyqueue%2F{}/dlq", place.queue);
        let dead = door.app.get(&path).await.expect(200).json();
        assert_eq!(dead["data"][0]["payload"], json!({"n": "a"}));
        // the id is free again
        place.add(&["a"]).await;
        assert_eq!(place.state().await.0, ["a"]);
    }
}

#[tokio::test]
async fn an_id_is_free_as_soon_as_its_message_was_received_too_often() {
    let door = door_with(&["--pyqueue-max-receive-count", "1"]).await;
    for place in door.places() {
        place.add(&["a"]).await;
        place.receive("?visibility_timeout=30").await;
        door.app.pass_seconds(31.0).await;
        let body = json!({"id": "a", "message_body": {"new": true}});
        place.post("messages", body).await.expect(200);

        let message = place.get("message/a").await.expect(200).json();
        assert_eq!(message["message_body"], json!({"new": true}));
        let page = place.get("messages?offset=9999999999").await.expect(200);
        assert_eq!(page.json()["has_more"], false);
        let received = place.receive("").await;
        assert_eq!(received[0]["message_body"], json!({"new": true}));
        assert_eq!(received.len(), 1);
    }
}
