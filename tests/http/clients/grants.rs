//! A caller grants only what its own token covers, and manages only clients of whom that is true.

use serde_json::json;

use super::create;
use crate::support::{SECRET_KEY, TestApp};

#[tokio::test]
async fn a_new_client_has_no_more_than_the_token_that_makes_it() {
    let app = TestApp::start_with_auth("*").await;

    for (own, granted, status) in [
        ("clients:create", "*", 403),
        ("clients:create", "topics:read", 403),
        ("clients:create", "clients:create", 201),
        (
            "clients:create topics:read",
            "topics:read:a topics:read:b-*",
            201,
        ),
        ("clients:create topics:read:a", "topics:read", 403),
        ("clients:create topics:read:a", "topics:read:a*", 403),
        (
            "clients:create topics:read:team-*",
            "topics:read:team-*",
            201,
        ),
        (
            "clients:create topics:read:team-*",
            "topics:read:team-a topics:read:team-b*",
            201,
        ),
        ("clients:create topics:read:team-*", "topics:read:te*", 403),
        ("clients:create topics:read:team-*", "topics:read:*", 403),
        ("clients:create topics:read:*", "topics:read", 403),
        (
            "clients:create topics:read",
            "topics:read topics:publish",
            403,
        ),
        ("*", "* topics:read", 201),
    ] {
        let token = app.token_for(own).await;
        let body = json!({"name": "made", "scopes": granted});
        let answer = app.with_token(Some(&token)).post("/clients", body).await;

        assert_eq!(
            answer.status, status,
            "{own} grants {granted}: {}",
            answer.body
        );
        if status == 403 {
            let challenge = answer.header("www-authenticate").unwrap();
            assert_eq!(challenge, "Bearer error=\"insufficient_scope\"");
        }
    }
    let made: i64 =
        sqlx::query_scalar("select count(*) from pubsub_data.clients where name = 'made'")
            .fetch_one(&app.pool())
            .await
            .unwrap();
    assert_eq!(made, 5);
}

#[tokio::test]
async fn a_client_raises_neither_itself_nor_another() {
    let app = TestApp::start_with_auth("*").await;
    let (own_id, secret) = app.client_with("clients:update topics:read").await;
    let body = json!({"client_id": own_id, "client_secret": secret});
    let token = app.post("/oauth/token", body).await.expect(201).json();
    let token = token["access_token"].as_str().unwrap();
    let (other_id, _) = app.client_with("topics:read").await;

    for id in [&own_id, &other_id] {
        let path = format!("/clients/{id}");
        let before = app.get(&path).await.json();
        for scopes in [
            "*",
            "clients:update topics:publish",
            "topics:read clients:create",
        ] {
            let body = json!({"name": "raised", "scopes": scopes});
            app.with_token(Some(token))
                .put(&path, body)
                .await
                .expect(403);
        }
        assert_eq!(app.get(&path).await.json(), before);
    }
    // less, or as much as it has itself, it may give
    let body = json!({"name": "n", "scopes": "topics:read:a clients:update"});
    let path = format!("/clients/{other_id}");
    app.with_token(Some(token))
        .put(&path, body)
        .await
        .expect(200);
}

#[tokio::test]
async fn a_client_with_more_scopes_than_the_caller_is_out_of_its_reach() {
    let app = TestApp::start_with_auth("*").await;
    let lower = "clients:update clients:delete topics:read";
    let token = app.token_for(lower).await;
    let caller = app.with_token(Some(&token));

    for (scopes, is_off, status) in [
        ("*", false, 403),
        ("topics:publish:a", false, 403),
        // what was taken from it would come back
        ("topics:publish", true, 403),
        ("topics:read:a", false, 200),
        // as older versions took it, and worth nothing
        ("topics:read clients:read:nobody", false, 200),
    ] {
        let (id, _) = app.client_with(scopes).await;
        sqlx::query("update pubsub_data.clients set is_active = $2 where client_id = $1::uuid")
            .bind(&id)
            .bind(!is_off)
            .execute(&app.pool())
            .await
            .unwrap();
        let path = format!("/clients/{id}");
        let before = app.get(&path).await.json();

        let body = json!({"name": "taken over", "scopes": "topics:read", "is_active": is_off});
        caller.put(&path, body).await.expect(status);
        if status == 403 {
            caller.delete(&path).await.expect(403);
            assert_eq!(app.get(&path).await.json(), before, "{scopes}");
        } else {
            caller.delete(&path).await.expect(204);
        }
    }
    let nobody = format!("/clients/{}", uuid::Uuid::now_v7());
    caller.delete(&nobody).await.expect(404);
}

#[tokio::test]
async fn a_narrowed_token_grants_no_more_than_itself() {
    let app =
        TestApp::start_with(&["--auth-enabled", "true", "--auth-secret-key", SECRET_KEY]).await;
    let (id, secret) = app.client_with("*").await;
    let request = app
        .request("POST", "/oauth/token")
        .basic_auth(id, Some(secret))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials&scope=clients:create+topics:read:a");
    let token = crate::support::answer(request).await.expect(200).json();
    let token = token["access_token"].as_str().unwrap();

    for (scopes, status) in [("*", 403), ("topics:read", 403), ("topics:read:a", 201)] {
        let body = json!({"name": "n", "scopes": scopes});
        let answer = app.with_token(Some(token)).post("/clients", body).await;
        assert_eq!(answer.status, status, "{scopes}");
    }
}

/// What was looked at is what is changed, whoever changes it between.
#[tokio::test]
async fn a_client_that_was_changed_meanwhile_is_409() {
    let app = TestApp::start().await;
    let (id, _) = create(&app, json!({"name": "n", "scopes": "topics:read"})).await;
    let path = format!("/clients/{id}");
    app.put(&path, json!({"name": "n", "scopes": "*"}))
        .await
        .expect(200);

    let id = uuid::Uuid::parse_str(&id).unwrap();
    for call in [
        "select pubsub.update_client($1, 'n', 'topics:read', true, 1)",
        "select pubsub.delete_client($1, 1)",
    ] {
        let refused = sqlx::query(call).bind(id).execute(&app.pool()).await;
        let error = fastpubsub::error::Error::from(refused.unwrap_err());
        assert_eq!(error.status(), 409, "{call}");
    }
    assert_eq!(app.get(&path).await.json()["scopes"], "*");
}
