//! Deleting messages.

use serde_json::json;

use super::{KEY, door, handle, ids};

#[tokio::test]
async fn a_message_is_deleted_by_its_handle_once() {
    let door = door().await;
    for place in door.places() {
        place.add(&["a", "b"]).await;
        let received = place.receive("?max_messages=1").await;
        let path = format!("messages/{}", handle(&received[0]));
        let deleted = place.delete(&path).await.expect(200).json();
        assert_eq!(
            deleted,
            json!({"status": "success", "message": "Message deleted"})
        );

        let missing = json!({"detail": "Message not found"});
        for path in [
            path.as_str(),
            "messages/rubbish",
            "messages/%00",
            "messages/by-id/a",
        ] {
            assert_eq!(
                place.delete(path).await.expect(404).json(),
                missing,
                "{path}"
            );
        }
        assert_eq!(place.state().await, (vec!["b".into()], 0));

        // the handle of another queue's message is none here
        let elsewhere = format!("/api/v1/queues/{}-other/messages", place.queue);
        let body = json!({"id": "x", "message_body": {}});
        place
            .send(KEY, "POST", &elsewhere, Some(body))
            .await
            .expect(200);
        let received = place
            .send(KEY, "POST", &format!("{elsewhere}/receive"), None)
            .await
            .json();
        let foreign = handle(&received["messages"][0]);
        place
            .delete(&format!("messages/{foreign}"))
            .await
            .expect(404);
        let own = format!("{elsewhere}/{foreign}");
        place.send(KEY, "DELETE", &own, None).await.expect(200);
    }
}

#[tokio::test]
async fn a_message_is_deleted_by_its_id_also_while_somebody_holds_it() {
    let door = door().await;
    for place in door.places() {
        place.add(&["a", "b", "c"]).await;
        let received = place.receive("?max_messages=1").await;
        for id in ["a", "b"] {
            let path = format!("messages/by-id/{id}");
            let deleted = place.delete(&path).await.expect(200).json();
            assert_eq!(
                deleted,
                json!({"status": "success", "message": "Message deleted"})
            );
            place.delete(&path).await.expect(404);
        }
        place
            .delete(&format!("messages/{}", handle(&received[0])))
            .await
            .expect(404);

        assert_eq!(place.state().await, (vec!["c".into()], 0));
        assert_eq!(ids(&place.receive("").await), ["c"]);
    }
}

#[tokio::test]
async fn clearing_a_queue_takes_what_is_in_flight_too() {
    let door = door().await;
    for place in door.places() {
        let cleared = json!({"status": "success", "message": "Queue cleared"});
        assert_eq!(place.delete("messages").await.expect(200).json(), cleared);
        place.add(&["a", "b", "c"]).await;
        let received = place.receive("?max_messages=2").await;
        assert_eq!(place.delete("messages").await.expect(200).json(), cleared);

        assert_eq!(place.state().await, (vec![], 0));
        place
            .delete(&format!("messages/{}", handle(&received[0])))
            .await
            .expect(404);
        place.get("message/c").await.expect(404);
        place.add(&["c", "a"]).await;
        assert_eq!(ids(&place.receive("").await), ["c", "a"]);
    }
}
