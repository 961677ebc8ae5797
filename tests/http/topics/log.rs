//! `GET /topics/{id}/messages`: what a topic retains.

use serde_json::{Value, json};

use crate::http::oauth::AUTH;
use crate::support::{TestApp, answer, ids};

/// Publish messages to `t`, each with an ordering key unless it is empty: their ids.
async fn publish(app: &TestApp, keys: &[&str]) -> Vec<Value> {
    let messages: Vec<Value> = keys
        .iter()
        .enumerate()
        .map(|(n, key)| match *key {
            "" => json!({"payload": {"n": n}}),
            key => json!({"payload": {"n": n}, "ordering_key": key}),
        })
        .collect();
    let body = json!({"messages": messages});
    let published = app.post("/topics/t/publish", body).await.expect(201).json();
    published["message_ids"].as_array().unwrap().clone()
}

/// A page: its messages, and where to go on.
async fn read(app: &TestApp, query: &str) -> (Vec<Value>, Value) {
    let page = app.get(&format!("/topics/t/messages{query}")).await;
    let page = page.expect(200).json();
    (
        page["data"].as_array().unwrap().clone(),
        page["next"].clone(),
    )
}

async fn app_with_topic(fields: Value) -> TestApp {
    let app = TestApp::start().await;
    let mut body = fields;
    body["id"] = json!("t");
    app.post("/topics", body).await.expect(201);
    app
}

#[tokio::test]
async fn everything_that_was_published_is_shown_whoever_received_it_and_nothing_is_leased() {
    let app = app_with_topic(json!({})).await;
    let first = publish(&app, &[""]).await;
    let body = json!({"id": "s", "topic_id": "t"});
    app.post("/subscriptions", body).await.expect(201);
    let rich = json!({"messages": [{"payload": {"n": 2}, "attributes": {"a": "b"}, "ordering_key": "k",
        "priority": 4, "ttl_seconds": 60}, {"payload": {"n": 3}}, {"payload": {}, "delay_seconds": 60}]});
    let published = app.post("/topics/t/publish", rich).await.expect(201).json();
    let acked = app.consume("s").await;
    app.post("/subscriptions/s/acks", json!(ids(&acked)[..1]))
        .await
        .expect(204);

    let (messages, next) = read(&app, "").await;

    let expected = [
        &first[0],
        &published["message_ids"][0],
        &published["message_ids"][1],
    ];
    assert_eq!(ids(&messages).iter().collect::<Vec<_>>(), expected);
    assert_eq!(&next, expected[2]);
    let mut shown = messages[1].clone();
    for time in ["created_at", "expires_at"] {
        assert!(
            shown[time].take().as_str().unwrap().ends_with('Z'),
            "{time}"
        );
    }
    assert_eq!(
        shown,
        json!({"id": expected[1], "topic_id": "t", "payload": {"n": 2}, "created_at": null,
            "attributes": {"a": "b"}, "ordering_key": "k", "priority": 4, "expires_at": null})
    );
    let plain = &messages[0];
    assert_eq!(
        [
            &plain["attributes"],
            &plain["ordering_key"],
            &plain["priority"],
            &plain["expires_at"]
        ],
        [&json!({}), &json!(null), &json!(0), &json!(null)]
    );
    let metrics = app.get("/subscriptions/s/metrics").await.expect(200).json();
    assert_eq!([&metrics["delivered"], &metrics["acked"]], [1, 1]);
}

#[tokio::test]
async fn pages_follow_one_another_until_one_is_empty() {
    let app = app_with_topic(json!({})).await;
    let published = publish(&app, &[""; 25]).await;

    let mut seen = Vec::new();
    let mut query = "?limit=10".to_owned();
    let last = loop {
        let (messages, next) = read(&app, &query).await;
        query = format!("?limit=10&after={}", next.as_str().unwrap());
        if messages.is_empty() {
            break next;
        }
        seen.push(messages.len());
        assert_eq!(Some(&next), ids(&messages).last());
    };

    assert_eq!(seen, [10, 10, 5]);
    // whoever waits for more goes on from there
    assert_eq!(last, published[24]);
    let more = publish(&app, &[""]).await;
    assert_eq!(ids(&read(&app, &query).await.0), more);
    assert_eq!(ids(&read(&app, "?limit=1000").await.0)[..25], published);
    assert_eq!(read(&app, "").await.0.len(), 10);
    // an id that is not there, such as one that has left by now
    let before = "?after=00000000-0000-7000-8000-000000000000&limit=1";
    assert_eq!(ids(&read(&app, before).await.0), published[..1]);
}

#[tokio::test]
async fn messages_of_some_ordering_keys_come_in_one_order_indexed_or_not() {
    for indexed in [false, true] {
        let app = app_with_topic(json!({"index_ordering_keys": indexed})).await;
        let long = "é".repeat(1024);
        let keys = ["a", "b", "", "a", &long, "c d&e", "b"];
        let published = publish(&app, &keys).await;
        let of = |places: &[usize]| -> Vec<Value> {
            places
                .iter()
                .map(|place| published[*place].clone())
                .collect()
        };

        for (query, places) in [
            ("?ordering_key=b".to_owned(), &[1, 6][..]),
            (
                "?ordering_key=b&ordering_key=a&ordering_key=b".to_owned(),
                &[0, 1, 3, 6],
            ),
            (
                "?ordering_key=b&ordering_key=none&ordering_key=a&limit=2".to_owned(),
                &[0, 1],
            ),
            (
                format!(
                    "?ordering_key=b&ordering_key=a&after={}",
                    published[1].as_str().unwrap()
                ),
                &[3, 6],
            ),
            (format!("?ordering_key={long}"), &[4]),
            ("?ordering_key=c%20d%26e".to_owned(), &[5]),
            ("?ordering_key=none".to_owned(), &[]),
        ] {
            let (messages, next) = read(&app, &query).await;
            assert_eq!(ids(&messages), of(places), "{indexed} {query:.60}");
            assert_eq!(
                next,
                *ids(&messages).last().unwrap_or(&json!(null)),
                "{query:.60}"
            );
        }
        let shown = app.get("/topics/t").await.expect(200).json();
        let flag = indexed.then_some(&json!(true));
        assert_eq!(shown.get("index_ordering_keys"), flag);
    }
}

#[tokio::test]
async fn a_rare_ordering_key_of_an_indexed_topic_is_found_without_reading_the_others() {
    let app = app_with_topic(json!({"index_ordering_keys": true})).await;
    let rare = publish(&app, &["rare"]).await;
    sqlx::raw_sql(
        "select pubsub.publish_messages('t', array_fill('{}'::jsonb, array[20000]), \
             p_ordering_keys => array_fill('often'::text, array[20000])); \
         analyze pubsub_data.messages",
    )
    .execute(&app.pool())
    .await
    .unwrap();
    let mut connection = app.database.connect().await;
    let mut hits = 0;
    // a session that reads for the first time reads the catalogs, too
    for _ in 0..2 {
        let plan: Vec<String> = sqlx::query_scalar(
            "explain (analyze, buffers, costs off, timing off, summary off) \
             select * from pubsub.read_messages('t', p_ordering_keys => '{rare}')",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let buffers = plan.iter().find_map(|line| line.split_once("shared hit="));
        let buffers = buffers.unwrap().1.split(' ').next().unwrap();
        hits = buffers.parse().unwrap();
    }

    // the topic has some 200 pages
    assert!(hits < 30, "{hits}");
    assert_eq!(ids(&read(&app, "?ordering_key=rare").await.0), rare);
}

#[tokio::test]
async fn since_is_when_they_were_published() {
    let app = app_with_topic(json!({})).await;
    let old = publish(&app, &[""; 2]).await;
    sqlx::raw_sql(
        "update pubsub_data.messages m set message_id = overlay(m.message_id::text placing \
             left(pubsub.id_at('2026-01-02T03:04:05Z')::text, 13) from 1)::uuid",
    )
    .execute(&app.pool())
    .await
    .unwrap();
    let new = publish(&app, &[""; 2]).await;
    assert_eq!(old.len(), 2);

    let count = async |since: &str| read(&app, &format!("?since={since}")).await.0.len();

    assert_eq!(count("2026-01-02T03:04:05Z").await, 4);
    assert_eq!(count("2026-01-02T03:04:05.001Z").await, 2);
    assert_eq!(count("2026-01-02T05:04:05%2B02:00").await, 4);
    assert_eq!(count("2999-01-01T00:00:00Z").await, 0);
    let after = format!(
        "?since=2026-01-03T00:00:00Z&after={}",
        new[0].as_str().unwrap()
    );
    assert_eq!(ids(&read(&app, &after).await.0), new[1..]);
    // some seconds back: who publishes now may yet come below them
    assert_eq!(read(&app, "?complete=true").await.0.len(), 2);
}

#[tokio::test]
async fn a_page_ends_early_rather_than_exceed_the_bytes_of_an_answer() {
    let app = TestApp::start_with(&["--api-max-answer-bytes", "1048576"]).await;
    app.post("/topics", json!({"id": "t"})).await.expect(201);
    let text = "x".repeat(300_000);
    for n in 0..4 {
        let body = json!([{"n": n, "text": text}]);
        app.post("/topics/t/messages", body).await.expect(204);
    }

    let first = app.get("/topics/t/messages").await.expect(200);
    assert!(first.body.len() <= 1_048_576, "{}", first.body.len());
    let first = first.json();
    assert_eq!(first["data"].as_array().unwrap().len(), 3);
    let query = format!("?after={}", first["next"].as_str().unwrap());
    assert_eq!(read(&app, &query).await.0[0]["payload"]["n"], 3);

    let tiny = TestApp::start_on(app.database.share(), &["--api-max-answer-bytes", "1024"]).await;
    assert_eq!(read(&tiny, "").await.0.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_its_place_and_limit() {
    let app = app_with_topic(json!({})).await;
    let many: String = (0..101).map(|n| format!("&ordering_key={n}")).collect();

    for (query, place, says) in [
        ("limit=0".to_owned(), "limit", "1"),
        ("limit=1001".to_owned(), "limit", "1000"),
        ("after=x".to_owned(), "after", "UUID"),
        ("since=yesterday".to_owned(), "since", "datetime"),
        ("complete=perhaps".to_owned(), "complete", "boolean"),
        ("ordering_key=".to_owned(), "ordering_key", "1"),
        (
            "ordering_key=a&ordering_key=".to_owned(),
            "ordering_key",
            "1",
        ),
        (
            format!("ordering_key={}", "x".repeat(1025)),
            "ordering_key",
            "1024",
        ),
        ("ordering_key=a%00".to_owned(), "ordering_key", "NUL"),
        (many[1..].to_owned(), "ordering_key", "100"),
        ("offset=1".to_owned(), "offset", "not permitted"),
    ] {
        let refused = app.get(&format!("/topics/t/messages?{query}")).await;
        let fault = &refused.expect(422).json()["detail"][0];
        assert_eq!(fault["loc"], json!(["query", place]), "{query:.40}");
        let text = fault["msg"].as_str().unwrap();
        assert!(text.contains(says), "{query:.40}: {text}");
    }
    let unknown = app.get("/topics/none/messages").await.expect(404).json();
    assert_eq!(unknown, json!({"detail": "Topic not found"}));
    app.get("/topics/%00/messages").await.expect(404);
    let body = json!({"id": "u", "index_ordering_keys": "perhaps"});
    let refused = app.post("/topics", body).await.expect(422).json();
    assert_eq!(
        refused["detail"][0]["loc"],
        json!(["body", "index_ordering_keys"])
    );
    // for good: what was published before would not be found
    let changes = json!({"index_ordering_keys": true});
    let request = app.request("PATCH", "/topics/t").json(&changes);
    let refused = answer(request).await.expect(422).json();
    assert_eq!(refused["detail"][0]["type"], "extra_forbidden");
}

#[tokio::test]
async fn the_log_is_read_by_who_may_subscribe_to_the_topic() {
    let app = TestApp::start_with(&AUTH).await;
    app.with_token(Some(&app.token_for("*").await))
        .post("/topics", json!({"id": "t"}))
        .await
        .expect(201);

    for (scopes, status) in [
        ("topics:subscribe", 200),
        ("topics:subscribe:t", 200),
        ("topics:subscribe:other", 403),
        (
            "topics:read topics:publish subscriptions:create subscriptions:consume",
            403,
        ),
    ] {
        let token = app.token_for(scopes).await;
        let read = app.with_token(Some(&token)).get("/topics/t/messages").await;
        assert_eq!(read.status, status, "{scopes}");
        // who may not learns nothing
        let none = app
            .with_token(Some(&token))
            .get("/topics/none/messages?limit=x")
            .await;
        let expected = if scopes == "topics:subscribe" {
            422
        } else {
            403
        };
        assert_eq!(none.status, expected, "{scopes}");
    }
}
