//! Tokens end with a change of their client.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{AUTH, access_token, request_json};
use crate::support::{Answer, SECRET_KEY, TestApp, answer};

const NOTICED_WITHIN: Duration = Duration::from_secs(5);

fn settings(is_active: bool) -> Value {
    json!({"name": "changed", "scopes": "*", "is_active": is_active})
}

#[track_caller]
fn assert_refused(answer: &Answer, text: &str) {
    assert_eq!(answer.status, 401, "{}", answer.body);
    assert_eq!(answer.json(), json!({"detail": text}));
    let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{text}\"");
    assert_eq!(answer.header("www-authenticate"), Some(&*challenge));
}

/// Contract point 3.
#[tokio::test]
async fn an_update_of_a_client_ends_its_tokens_at_once() {
    let app = TestApp::start_with_auth("*").await;
    let (id, secret) = app.client_with("*").await;
    let old = access_token(&request_json(&app, &id, &secret).await);
    app.with_token(Some(&old)).get("/topics").await.expect(200);

    let path = format!("/clients/{id}");
    app.put(&path, settings(true)).await.expect(200);

    let answer = app.with_token(Some(&old)).get("/topics").await;
    assert_refused(&answer, "Token revoked");
}

#[tokio::test]
async fn a_pull_that_waits_ends_with_its_client_and_gets_nothing_more() {
    for change in ["deleted", "deactivated", "updated"] {
        let app = TestApp::start_with_auth("*").await;
        app.topic_with_subscription("t", "s", json!({})).await;
        let (id, secret) = app.client_with("*").await;
        let token = access_token(&request_json(&app, &id, &secret).await);
        let body = json!({"consumer_id": "c", "wait_seconds": 30});
        let request = app.request("POST", "/subscriptions/s/pull").json(&body);
        // the last one counts
        let request = request.headers(
            [(
                reqwest::header::AUTHORIZATION,
                format!("Bearer {token}").parse().unwrap(),
            )]
            .into_iter()
            .collect(),
        );
        let started = Instant::now();
        let waiting = tokio::spawn(answer(request));
        tokio::time::sleep(Duration::from_millis(300)).await;

        let path = format!("/clients/{id}");
        match change {
            "deleted" => app.delete(&path).await.expect(204),
            "deactivated" => app.put(&path, settings(false)).await.expect(200),
            _ => app.put(&path, settings(true)).await.expect(200),
        };
        app.post("/topics/t/messages", json!([{"n": 1}]))
            .await
            .expect(204);

        let answer = waiting.await.unwrap();
        assert_eq!(answer.status, 401, "{change}: {}", answer.body);
        assert!(started.elapsed() < Duration::from_secs(20), "{change}");
        assert_eq!(app.consume("s").await.len(), 1, "{change}");
    }
}

#[tokio::test]
async fn a_token_issued_after_the_update_works() {
    let app = TestApp::start_with_auth("*").await;
    let (id, secret) = app.client_with("*").await;
    let old = access_token(&request_json(&app, &id, &secret).await);
    app.with_token(Some(&old)).get("/topics").await.expect(200);
    let path = format!("/clients/{id}");
    app.put(&path, settings(true)).await.expect(200);

    let new = access_token(&request_json(&app, &id, &secret).await.expect(201));

    app.with_token(Some(&new)).get("/topics").await.expect(200);
}

#[tokio::test]
async fn an_update_leaves_the_tokens_of_other_clients_alone() {
    let app = TestApp::start_with_auth("*").await;
    let (id, _) = app.client_with("*").await;
    let other = app.token_for("*").await;

    let path = format!("/clients/{id}");
    app.put(&path, settings(true)).await.expect(200);

    app.with_token(Some(&other))
        .get("/topics")
        .await
        .expect(200);
}

#[tokio::test]
async fn the_scopes_of_a_token_are_those_of_its_issue() {
    let app = TestApp::start_with_auth("*").await;
    let (id, secret) = app.client_with("topics:read").await;
    let path = format!("/clients/{id}");
    let wider = json!({"name": "n", "scopes": "topics:read subscriptions:read"});
    app.put(&path, wider).await.expect(200);

    let token = access_token(&request_json(&app, &id, &secret).await);

    let caller = app.with_token(Some(&token));
    caller.get("/subscriptions").await.expect(200);
    caller.get("/clients").await.expect(403);
}

/// Contract point 3.
#[tokio::test]
async fn the_deletion_of_a_client_ends_its_tokens_at_once() {
    let app = TestApp::start_with_auth("*").await;
    let (id, secret) = app.client_with("*").await;
    let token = access_token(&request_json(&app, &id, &secret).await);
    app.with_token(Some(&token))
        .get("/topics")
        .await
        .expect(200);

    app.delete(&format!("/clients/{id}")).await.expect(204);

    let answer = app.with_token(Some(&token)).get("/topics").await;
    assert_refused(&answer, "Client not found");
    request_json(&app, &id, &secret).await.expect(401);
}

#[tokio::test]
async fn a_token_of_a_deleted_client_is_not_one_of_another_with_its_id() {
    let app = TestApp::start_with_auth("*").await;
    let (id, secret) = app.client_with("*").await;
    let old = access_token(&request_json(&app, &id, &secret).await);
    // as somebody at psql does who puts it back
    sqlx::query("select pubsub.delete_client($1::uuid)")
        .bind(&id)
        .execute(&app.pool())
        .await
        .unwrap();
    sqlx::query("select pubsub.create_client($1::uuid, 'n', 'topics:read', true, $2)")
        .bind(&id)
        .bind(fastpubsub::auth::secrets::hash(&secret))
        .execute(&app.pool())
        .await
        .unwrap();

    let new = access_token(&request_json(&app, &id, &secret).await);

    let answer = app.with_token(Some(&old)).get("/topics").await;
    assert_refused(&answer, "Token revoked");
    app.with_token(Some(&new)).get("/topics").await.expect(200);
}

#[tokio::test]
async fn an_inactive_clients_token_is_refused() {
    let app = TestApp::start_with_auth("*").await;
    let (id, secret) = app.client_with("*").await;
    let token = access_token(&request_json(&app, &id, &secret).await);
    app.with_token(Some(&token))
        .get("/topics")
        .await
        .expect(200);

    let path = format!("/clients/{id}");
    app.put(&path, settings(false)).await.expect(200);

    let answer = app.with_token(Some(&token)).get("/topics").await;
    assert_refused(&answer, "Client disabled");
}

#[tokio::test]
async fn a_client_may_end_its_own_tokens() {
    let app = TestApp::start_with_auth("*").await;
    let (id, secret) = app.client_with("clients:delete").await;
    let token = access_token(&request_json(&app, &id, &secret).await);
    let caller = app.with_token(Some(&token));

    caller.delete(&format!("/clients/{id}")).await.expect(204);

    caller.delete(&format!("/clients/{id}")).await.expect(401);
}

/// Contract point 3.
#[tokio::test]
async fn another_server_notices_within_seconds() {
    let app = TestApp::start_with_auth("*").await;
    let other = TestApp::start_on(app.database.share(), &AUTH).await;
    let mut clients = Vec::new();
    for change in ["updated", "disabled", "deleted"] {
        let (id, secret) = app.client_with("*").await;
        let token = access_token(&request_json(&app, &id, &secret).await);
        other
            .with_token(Some(&token))
            .get("/topics")
            .await
            .expect(200);
        clients.push((change, format!("/clients/{id}"), token));
    }

    for (change, path, _) in &clients {
        match *change {
            "updated" => app.put(path, settings(true)).await.expect(200),
            "disabled" => app.put(path, settings(false)).await.expect(200),
            _ => app.delete(path).await.expect(204),
        };
    }

    let changed = Instant::now();
    for (change, _, token) in clients {
        while other.with_token(Some(&token)).get("/topics").await.status == 200 {
            assert!(changed.elapsed() < NOTICED_WITHIN, "{change}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_token_issued_after_the_update_works_on_another_server_at_once() {
    let app = TestApp::start_with_auth("*").await;
    let other = TestApp::start_on(app.database.share(), &AUTH).await;
    let (id, secret) = app.client_with("*").await;
    let old = access_token(&request_json(&app, &id, &secret).await);
    other
        .with_token(Some(&old))
        .get("/topics")
        .await
        .expect(200);
    let path = format!("/clients/{id}");
    app.put(&path, settings(true)).await.expect(200);

    let new = access_token(&request_json(&app, &id, &secret).await.expect(201));

    other
        .with_token(Some(&new))
        .get("/topics")
        .await
        .expect(200);
}

#[tokio::test]
async fn tokens_survive_a_restart_of_the_server() {
    let app = TestApp::start_with_auth("*").await;
    let token = app.token_for("*").await;

    let restarted = TestApp::start_on(app.database.share(), &AUTH).await;
    let other_key = SECRET_KEY.to_uppercase();
    let flags = ["--auth-enabled", "true", "--auth-secret-key", &other_key];
    let rekeyed = TestApp::start_on(app.database.share(), &flags).await;

    restarted
        .with_token(Some(&token))
        .get("/topics")
        .await
        .expect(200);
    rekeyed
        .with_token(Some(&token))
        .get("/topics")
        .await
        .expect(401);
}
