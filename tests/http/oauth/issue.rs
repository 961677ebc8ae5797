//! Token requests that are granted.

use std::collections::BTreeSet;

use chrono::Utc;
use serde_json::json;
use uuid::Uuid;

use super::{AUTH, access_token, claims, narrowed, part, request_form, request_json};
use crate::support::{SECRET_KEY, TestApp};

#[tokio::test]
async fn a_json_request_is_answered_201_with_the_keys_of_the_original() {
    let app = TestApp::start_with(&AUTH).await;
    let (id, secret) = app.client_with("topics:read clients:read").await;

    let answer = request_json(&app, &id, &secret).await.expect(201);

    assert_eq!(
        answer.json(),
        json!({
            "access_token": access_token(&answer),
            "token_type": "Bearer",
            "expires_in": 1800,
            "scope": "topics:read clients:read",
        })
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

/// Contract point 3.
#[tokio::test]
async fn a_token_has_the_claims_of_the_original_and_the_registered_ones() {
    let app = TestApp::start_with(&AUTH).await;
    let (id, secret) = app.client_with("topics:read").await;

    let tokens = [
        access_token(&request_json(&app, &id, &secret).await),
        access_token(&request_json(&app, &id, &secret).await),
    ];

    let now = Utc::now().timestamp();
    let claims = tokens.map(|token| part(&token, 1));
    for claims in &claims {
        let issued_at = claims["iat"].as_i64().unwrap();
        assert!((now - 60..=now).contains(&issued_at), "{claims}");
        assert!(claims["client_created"].is_i64(), "{claims}");
        let jti = claims["jti"].as_str().unwrap();
        assert!(Uuid::parse_str(jti).is_ok(), "{claims}");
        assert_eq!(
            *claims,
            json!({
                "sub": id,
                "scope": "topics:read",
                "ver": 1,
                "iat": issued_at,
                "exp": issued_at + 1800,
                "iss": "fastpubsub",
                "jti": jti,
                "client_id": id,
                "client_created": claims["client_created"],
            })
        );
    }
    assert_ne!(claims[0]["jti"], claims[1]["jti"]);
}

/// Original's defect 19.
#[tokio::test]
async fn a_form_request_is_answered_200_and_never_stored() {
    let app = TestApp::start_with(&AUTH).await;
    let (id, secret) = app.client_with("topics:read").await;
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", id.as_str()),
        ("client_secret", secret.as_str()),
    ];

    let answer = request_form(&app, &fields, None).await.expect(200);

    assert_eq!(
        answer.json(),
        json!({
            "access_token": access_token(&answer),
            "token_type": "Bearer",
            "expires_in": 1800,
            "scope": "topics:read",
        })
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("pragma"), Some("no-cache"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn the_credentials_of_a_form_request_may_come_as_http_basic() {
    let app = TestApp::start_with(&AUTH).await;
    let (id, secret) = app.client_with("topics:read").await;

    let answer = request_form(
        &app,
        &[("grant_type", "client_credentials")],
        Some((&id, &secret)),
    )
    .await
    .expect(200);

    assert_eq!(part(&access_token(&answer), 1)["sub"], json!(id));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn a_form_request_may_carry_parameters_of_its_media_type_and_an_unknown_field() {
    let app = TestApp::start_with(&AUTH).await;
    let (id, secret) = app.client_with("*").await;
    let request = app
        .request("POST", "/oauth/token")
        .header(
            "content-type",
            "Application/X-WWW-Form-Urlencoded; charset=UTF-8",
        )
        .basic_auth(id, Some(secret))
        .body("grant_type=client_credentials&audience=a&audience=b&scope=");

    let answer = crate::support::answer(request).await.expect(200);

    assert_eq!(answer.json()["scope"], json!("*"));
}

#[tokio::test]
async fn a_requested_scope_narrows_the_token() {
    let app = TestApp::start_with(&AUTH).await;
    let client = app.client_with("topics:read subscriptions:read").await;

    let token = narrowed(&app, &client, "topics:read:mine").await;

    assert_eq!(part(&token, 1)["scope"], json!("topics:read:mine"));
    let caller = app.with_token(Some(&token));
    caller.get("/topics/mine").await.expect(404);
    caller.get("/topics/other").await.expect(403);
    let listed = caller.get("/topics").await.expect(200).json();
    assert_eq!(listed, json!({"data": []}));
    caller.get("/subscriptions").await.expect(403);
}

#[tokio::test]
async fn the_life_of_a_token_follows_its_setting() {
    let flags = [&AUTH[..], &["--auth-access-token-expire-minutes", "2"]].concat();
    let app = TestApp::start_with(&flags).await;
    let (id, secret) = app.client_with("*").await;

    let answer = request_json(&app, &id, &secret).await.expect(201);

    assert_eq!(answer.json()["expires_in"], json!(120));
    let claims = part(&access_token(&answer), 1);
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(life, 120);
}

#[tokio::test]
async fn tokens_are_signed_with_the_algorithm_of_the_settings() {
    for algorithm in ["HS256", "HS384", "HS512"] {
        let flags = [&AUTH[..], &["--auth-algorithm", algorithm]].concat();
        let app = TestApp::start_with(&flags).await;

        let token = app.token_for("*").await;

        assert_eq!(part(&token, 0)["alg"], json!(algorithm));
        let caller = app.with_token(Some(&token));
        assert_eq!(caller.get("/topics").await.status, 200, "{algorithm}");
    }
}

#[tokio::test]
async fn tokens_are_issued_while_authentication_is_off_if_there_is_a_key() {
    let app = TestApp::start_with(&["--auth-secret-key", SECRET_KEY]).await;

    let token = app.token_for("topics:read").await;

    let names: BTreeSet<String> = part(&token, 1)
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let original: BTreeSet<String> = claims("").as_object().unwrap().keys().cloned().collect();
    assert!(names.is_superset(&original), "{names:?}");
}

#[tokio::test]
async fn a_client_of_the_python_original_gets_a_token_with_its_argon2_secret() {
    let app = TestApp::start_with(&AUTH).await;
    let id = Uuid::now_v7();
    // secret "s3cret"
    let hash = "$argon2id$v=19$m=65536,t=3,p=4$MDEyMzQ1Njc4OWFiY2RlZg$\
                a7FoYtlzPIwfy3y3ORktIs3turwdlVrwKYvt43RfjQ4";
    sqlx::query("select pubsub.create_client($1, 'old', 'topics:read', true, $2)")
        .bind(id)
        .bind(hash)
        .execute(&app.pool())
        .await
        .unwrap();

    let right = request_json(&app, &id.to_string(), "s3cret").await;
    let wrong = request_json(&app, &id.to_string(), "S3cret").await;

    assert_eq!((right.status, wrong.status), (201, 401));
    let caller_token = access_token(&right);
    let caller = app.with_token(Some(&caller_token));
    caller.get("/topics").await.expect(200);
}
