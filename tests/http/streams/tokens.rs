//! Who may stream, and for how long.

use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm::HS256;
use serde_json::json;

use super::{
    Events, connect_async, hear, hear_or_close, publish, refused, say, socket_request, until,
};
use crate::http::oauth::{AUTH, claims, sign};
use crate::support::database::TestDatabase;
use crate::support::{SECRET_KEY, TestApp};

/// As is promised, with some time for a busy machine.
const WITHIN_SECONDS: Duration = Duration::from_secs(14);
const SCOPE: &str = "subscriptions:consume:s";

/// A server that asks for tokens, and one of an operator.
async fn app_with_auth() -> TestApp {
    let app = TestApp::start_with_auth("*").await;
    app.topic_with_subscription("t", "s", json!({})).await;
    app
}

#[tokio::test]
async fn a_stream_needs_the_scope_on_its_subscription() {
    let app = app_with_auth().await;
    for (scopes, status) in [
        ("subscriptions:consume:other", 403),
        ("subscriptions:read topics:publish", 403),
        (SCOPE, 200),
        ("subscriptions:consume", 200),
    ] {
        let token = app.token_for(scopes).await;
        let authorization = format!("Bearer {token}");
        let request = app
            .with_token(None)
            .request("GET", "/subscriptions/s/stream");
        let answer = request.header("authorization", &authorization).send().await;
        assert_eq!(answer.unwrap().status(), status, "{scopes}");
        let mut request = socket_request(&app, "");
        let header = authorization.parse().unwrap();
        request.headers_mut().insert("authorization", header);
        match status {
            200 => drop(connect_async(request).await.unwrap()),
            _ => assert_eq!(refused(request).await.0, status, "{scopes}"),
        }
    }
    assert_eq!(refused(socket_request(&app, "")).await.0, 401);
    let key = app.api_key_for(SCOPE).await;
    let mut request = socket_request(&app, "");
    request
        .headers_mut()
        .insert("x-api-key", key.parse().unwrap());
    connect_async(request).await.unwrap();
}

#[tokio::test]
async fn a_browser_may_show_a_token_in_the_query_of_a_stream_and_nowhere_else() {
    let app = app_with_auth().await;
    publish(&app, json!([{"n": 1}])).await;
    let token = app.token_for("*").await;
    let nobody = app.with_token(None);
    let query = format!("?access_token={token}");

    let stream = nobody.request("GET", &format!("/subscriptions/s/stream{query}"));
    Events::of(stream).await.next().await;
    connect_async(socket_request(&app, &query)).await.unwrap();

    for path in ["/topics", "/subscriptions/s/browse", "/subscriptions/s"] {
        nobody.get(&format!("{path}{query}")).await.expect(401);
    }
    let key = app.api_key_for("*").await;
    for query in [
        format!("?access_token={key}"),
        "?access_token=".to_owned(),
        "?access_token=x".to_owned(),
        format!("{query}&access_token={token}"),
    ] {
        let path = format!("/subscriptions/s/stream{query}");
        nobody.get(&path).await.expect(401);
        assert_eq!(refused(socket_request(&app, &query)).await.0, 401);
    }
    // who shows two is nobody
    let both = app.request("GET", &format!("/subscriptions/s/stream{query}"));
    crate::support::answer(both).await.expect(401);
}

#[tokio::test]
async fn streams_end_when_their_client_may_no_more_on_this_server_and_on_others() {
    let database = TestDatabase::create().await;
    let here = TestApp::start_on(database.share(), &AUTH).await;
    let elsewhere = TestApp::start_on(database.share(), &AUTH).await;
    let operator = here.token_for("*").await;
    let operator = here.with_token(Some(&operator));
    operator
        .post("/topics", json!({"id": "t"}))
        .await
        .expect(201);
    let body = json!({"id": "s", "topic_id": "t"});
    operator.post("/subscriptions", body).await.expect(201);
    let (id, secret) = here.client_with(SCOPE).await;
    let body = json!({"client_id": id, "client_secret": secret});
    let token = here.post("/oauth/token", body).await.expect(201).json();
    let query = format!("?access_token={}", token["access_token"].as_str().unwrap());
    let (mut events, mut sockets) = (Vec::new(), Vec::new());
    for app in [&here, &elsewhere] {
        let path = format!("/subscriptions/s/stream{query}");
        events.push(Events::of(app.request("GET", &path)).await);
        sockets.push(connect_async(socket_request(app, &query)).await.unwrap().0);
    }
    let begun = Instant::now();

    let changed = json!({"name": "changed", "scopes": SCOPE});
    let path = format!("/clients/{id}");
    operator.put(&path, changed).await.expect(200);
    operator
        .post("/topics/t/messages", json!([{"n": 1}]))
        .await
        .expect(204);

    for mut events in events {
        // the other server may hand it out for as long as it may not know
        let mut last = events.next_or_end().await.unwrap();
        while last.kind == "message" {
            last = events.next_or_end().await.unwrap();
        }
        assert_eq!(last.data, json!({"detail": "Token revoked"}));
        assert!(events.next_or_end().await.is_none());
    }
    for mut socket in sockets {
        let closed = loop {
            if let Err(closed) = hear_or_close(&mut socket).await {
                break closed;
            }
        };
        assert_eq!(closed, (1008, "Token revoked".to_owned()));
    }
    assert!(begun.elapsed() < WITHIN_SECONDS, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_may_no_more_settles_nothing_on_a_socket_that_is_still_open() {
    let app = app_with_auth().await;
    publish(&app, json!([{"n": 1}])).await;
    let (id, secret) = app.client_with(SCOPE).await;
    let body = json!({"client_id": id, "client_secret": secret});
    let token = app.with_token(None).post("/oauth/token", body).await;
    let token = token.expect(201).json();
    let token = token["access_token"].as_str().unwrap();
    // it holds all it may: nothing is pulled for it
    let query = format!("?max_in_flight=1&access_token={token}");
    let mut socket = connect_async(socket_request(&app, &query)).await.unwrap().0;
    let message = hear(&mut socket).await;

    app.delete(&format!("/clients/{id}")).await.expect(204);
    let ack = json!({"type": "ack", "receipt": message["receipt"]});
    let told = say(&mut socket, ack).await;

    assert_eq!(told["type"], "error", "{told}");
    assert_eq!(hear_or_close(&mut socket).await.unwrap_err().0, 1008);
    until(&app, "available", 1).await;
}

#[tokio::test]
async fn streams_end_with_their_token_also_where_the_client_holds_all_it_may() {
    let app = app_with_auth().await;
    publish(&app, json!([{"n": 1}, {"n": 2}, {"n": 3}])).await;
    let (client, _) = app.client_with(SCOPE).await;
    let mut claims = claims(&client);
    claims["scope"] = json!(SCOPE);
    claims["exp"] = json!(chrono::Utc::now().timestamp() + 3);
    let query = format!("?access_token={}", sign(HS256, SECRET_KEY, &claims));
    let nobody = app.with_token(None);
    let full = format!("{query}&max_in_flight=1");
    let path = |query: &str| format!("/subscriptions/s/stream{query}");
    let mut full_events = Events::of(nobody.request("GET", &path(&full))).await;
    full_events.next().await;
    let mut full_socket = connect_async(socket_request(&app, &full)).await.unwrap().0;
    hear_or_close(&mut full_socket).await.unwrap();
    let mut events = Events::of(nobody.request("GET", &path(&query))).await;
    events.next().await;
    let begun = Instant::now();

    for mut events in [full_events, events] {
        let mut last = events.next_or_end().await.unwrap();
        while last.kind == "message" {
            last = events.next_or_end().await.unwrap();
        }
        assert_eq!(last.kind, "error", "{last:?}");
    }
    let closed = loop {
        if let Err(closed) = hear_or_close(&mut full_socket).await {
            break closed;
        }
    };
    assert_eq!(closed.0, 1008, "{closed:?}");
    assert!(begun.elapsed() < WITHIN_SECONDS, "{:?}", begun.elapsed());
}
