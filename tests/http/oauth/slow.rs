//! Logins of clients with a hash of the Python original, which is slow to check.

use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use super::{AUTH, access_token, request_form, request_json};
use crate::support::TestApp;

/// "s3cret", as pwdlib hashes it.
const ARGON2: &str = "$argon2id$v=19$m=65536,t=3,p=4$MDEyMzQ1Njc4OWFiY2RlZg$\
                      a7FoYtlzPIwfy3y3ORktIs3turwdlVrwKYvt43RfjQ4";

async fn old_client(app: &TestApp) -> String {
    let id = Uuid::now_v7();
    sqlx::query("select pubsub.create_client($1, 'old', 'topics:read', true, $2)")
        .bind(id)
        .bind(ARGON2)
        .execute(&app.pool())
        .await
        .unwrap();
    id.to_string()
}

async fn stored_hash(app: &TestApp, id: &str) -> String {
    sqlx::query_scalar("select secret_hash from pubsub_data.clients where client_id = $1::uuid")
        .bind(id)
        .fetch_one(&app.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn the_first_good_login_replaces_a_slow_hash_and_keeps_the_tokens() {
    let app = TestApp::start_with(&AUTH).await;
    let id = old_client(&app).await;

    request_json(&app, &id, "wrong").await.expect(401);
    assert_eq!(stored_hash(&app, &id).await, ARGON2);
    let first = access_token(&request_json(&app, &id, "s3cret").await.expect(201));
    assert_eq!(
        stored_hash(&app, &id).await,
        fastpubsub::auth::secrets::hash("s3cret")
    );
    request_json(&app, &id, "s3cret").await.expect(201);
    request_json(&app, &id, "wrong").await.expect(401);

    app.with_token(Some(&first))
        .get("/topics")
        .await
        .expect(200);
}

#[tokio::test]
async fn a_hash_that_was_changed_meanwhile_is_not_replaced() {
    let app = TestApp::start_with(&AUTH).await;
    let id = old_client(&app).await;

    let renewed: bool =
        sqlx::query_scalar("select pubsub.renew_secret_hash($1::uuid, 'another', 'sha256$00')")
            .bind(&id)
            .fetch_one(&app.pool())
            .await
            .unwrap();

    assert!(!renewed);
    assert_eq!(stored_hash(&app, &id).await, ARGON2);
}

/// Forty at a time took 25 s before the right one was looked at.
#[tokio::test]
async fn wrong_logins_keep_neither_the_right_one_nor_another_client_waiting() {
    let app = TestApp::start_with(&AUTH).await;
    let (attacked, other) = (old_client(&app).await, old_client(&app).await);
    let url = format!("{}/oauth/token", app.url);
    let client = reqwest::Client::new();
    let attack: Vec<_> = (0..40)
        .map(|number| {
            let body = json!({"client_id": attacked, "client_secret": format!("wrong {number}")});
            let request = client.post(&url).json(&body);
            tokio::spawn(async move { request.send().await.unwrap() })
        })
        .collect();
    // all have come: newer ones would take the place of the right one
    while attack.iter().filter(|login| login.is_finished()).count() < 30 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let started = Instant::now();
    let (right, others) = tokio::join!(
        request_json(&app, &attacked, "s3cret"),
        request_json(&app, &other, "s3cret")
    );

    assert_eq!((right.status, others.status), (201, 201));
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    let mut busy = 0;
    for answer in attack {
        let answer = answer.await.unwrap();
        match answer.status().as_u16() {
            429 => {
                assert_eq!(answer.headers()["retry-after"], "1");
                busy += 1;
            }
            status => assert_eq!(status, 401),
        }
    }
    assert!(busy > 20, "{busy} of 40 were refused at once");
}

#[tokio::test]
async fn a_refusal_takes_as_long_for_an_unknown_client_as_for_a_slow_one() {
    let app = TestApp::start_with(&AUTH).await;
    let slow = old_client(&app).await;
    let (fast, secret) = app.client_with("*").await;
    let unknown = Uuid::now_v7().to_string();

    for id in [&slow, &fast, &unknown] {
        let started = Instant::now();
        request_json(&app, id, "wrong").await.expect(401);
        let basic = request_form(
            &app,
            &[("grant_type", "client_credentials")],
            Some((id, "wrong")),
        );
        assert_eq!(basic.await.status, 401);
        // two whole seconds for the two
        assert!(started.elapsed() >= Duration::from_millis(1900), "{id}");
    }
    let started = Instant::now();
    request_json(&app, &fast, &secret).await.expect(201);
    assert!(started.elapsed() < Duration::from_millis(900));
    // and nobody waits when nobody has a slow one any more
    request_json(&app, &slow, "s3cret").await.expect(201);
    let started = Instant::now();
    request_json(&app, &unknown, "wrong").await.expect(401);
    assert!(started.elapsed() < Duration::from_millis(900));
}
