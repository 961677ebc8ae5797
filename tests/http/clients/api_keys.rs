//! API keys: what they allow, where they may stand, and when they end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::messages::waiting::watched_by;
use crate::support::{Answer, SECRET_KEY, TestApp, answer};

const AUTH: [&str; 4] = ["--auth-enabled", "true", "--auth-secret-key", SECRET_KEY];
const NOTICED_WITHIN: Duration = Duration::from_secs(5);

/// Counts the calls that look keys up; one for keys that nobody has takes as long as it says.
const COUNTED: &str = "
    create sequence public.lookups;
    create or replace function pubsub.api_key_credentials(p_api_key_hashes text[])
    returns table (
        api_key_hash text, client_id uuid, scopes text, is_active boolean, token_version int
    )
    language plpgsql stable as $$
    begin
        perform nextval('public.lookups');
        return query select c.api_key_hash, c.client_id, c.scopes, c.is_active, c.token_version
            from pubsub_data.clients c where c.api_key_hash = any(p_api_key_hashes);
        if not found then
            perform pg_sleep(SECONDS);
        end if;
    end $$";

/// A new client with a key: its path and its key.
async fn keyed(app: &TestApp, scopes: &str) -> (String, String) {
    let body = json!({"name": "n", "scopes": scopes, "api_key": true});
    let made = app.post("/clients", body).await.expect(201).json();
    let key = made["api_key"].as_str().unwrap().to_owned();
    (format!("/clients/{}", made["id"].as_str().unwrap()), key)
}

/// A key of the right form that nobody has.
fn unknown() -> String {
    fastpubsub::auth::api_keys::generate()
}

async fn with_header(app: &TestApp, name: &str, value: &str) -> Answer {
    // without the token of the app
    let request = reqwest::Client::new().get(format!("{}/topics", app.url));
    answer(request.header(name, value)).await
}

async fn status(app: &TestApp, key: &str) -> u16 {
    with_header(app, "x-api-key", key).await.status
}

async fn rotate(app: &TestApp, path: &str, overlap_seconds: u32) -> Value {
    let body = json!({"overlap_seconds": overlap_seconds});
    let made = app.post(&format!("{path}/credentials"), body).await;
    made.expect(201).json()
}

fn key_of(made: &Value) -> &str {
    made["api_key"].as_str().unwrap()
}

async fn lookups(app: &TestApp) -> i64 {
    sqlx::query_scalar("select case when is_called then last_value else 0 end from public.lookups")
        .fetch_one(&app.pool())
        .await
        .unwrap()
}

async fn count_lookups(app: &TestApp, seconds: u32) {
    let counted = COUNTED.replace("SECONDS", &seconds.to_string());
    sqlx::raw_sql(sqlx::AssertSqlSafe(counted))
        .execute(&app.pool())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_key_is_taken_wherever_a_token_is() {
    let app = TestApp::start_with_auth("*").await;
    let (path, key) = keyed(&app, "*").await;

    with_header(&app, "x-api-key", &key).await.expect(200);
    for scheme in ["Bearer", "bearer"] {
        let header = format!("{scheme} {key}");
        with_header(&app, "authorization", &header)
            .await
            .expect(200);
    }
    let shown = app.get(&path).await.expect(200).body;
    assert!(
        !shown.contains(&key) && !shown.contains("sha256"),
        "{shown}"
    );
    let rows: Vec<String> = sqlx::query_scalar("select c::text from pubsub_data.clients c")
        .fetch_all(&app.pool())
        .await
        .unwrap();
    assert!(rows.iter().all(|row| !row.contains(&key)), "{rows:?}");
}

#[tokio::test]
async fn a_client_has_a_key_where_one_was_asked_for() {
    let app = TestApp::start().await;

    for asked in [json!({}), json!({"api_key": false})] {
        let mut body = json!({"name": "n", "scopes": "*"});
        let fields = body.as_object_mut().unwrap();
        fields.extend(asked.as_object().unwrap().clone());
        let made = app.post("/clients", body).await.expect(201).json();
        assert_eq!(made.get("api_key"), None, "{made}");
    }
    let body = json!({"name": "n", "scopes": "*", "api_key": "maybe"});
    app.post("/clients", body).await.expect(422);
    let (path, _) = keyed(&app, "*").await;
    let body = json!({"name": "n", "scopes": "*", "api_key": true});
    app.put(&path, body).await.expect(422);
}

#[tokio::test]
async fn what_is_no_key_of_anybody_is_401_with_the_challenge() {
    let app = TestApp::start_with_auth("*").await;
    let (_, key) = keyed(&app, "*").await;
    let (_, secret) = app.client_with("*").await;

    for other in ["", "fps_", "garbage", &secret, &key[4..], &unknown()] {
        let refused = with_header(&app, "x-api-key", other).await.expect(401);
        assert_eq!(refused.json(), json!({"detail": "Invalid API key"}));
        let challenge = "Bearer error=\"invalid_token\", error_description=\"Invalid API key\"";
        assert_eq!(refused.header("www-authenticate"), Some(challenge));
    }
    let bearer = format!("Bearer {}", unknown());
    let refused = with_header(&app, "authorization", &bearer).await;
    assert_eq!(refused.expect(401).json()["detail"], "Invalid API key");
}

#[tokio::test]
async fn who_shows_two_credentials_is_nobody() {
    let app = TestApp::start_with_auth("*").await;
    let (_, key) = keyed(&app, "*").await;
    let token = app.token_for("*").await;

    for (first, second) in [
        ("authorization", format!("Bearer {token}")),
        ("authorization", format!("Bearer {key}")),
        ("authorization", "Basic dTpw".to_owned()),
        ("x-api-key", key.clone()),
        ("x-api-key", unknown()),
    ]
    .map(|(name, value)| ((name, value), ("x-api-key", key.as_str())))
    {
        let request = reqwest::Client::new().get(format!("{}/topics", app.url));
        let request = request.header(first.0, first.1).header(second.0, second.1);
        answer(request).await.expect(401);
    }
}

#[tokio::test]
async fn a_key_has_the_scopes_that_its_client_has_now() {
    let app = TestApp::start_with_auth("*").await;
    let (path, key) = keyed(&app, "topics:read:a").await;
    let reads = async |topic: &str| {
        let request = reqwest::Client::new().get(format!("{}/topics/{topic}", app.url));
        answer(request.header("x-api-key", &key)).await
    };

    reads("a").await.expect(404);
    let refused = reads("b").await.expect(403);
    let challenge = "Bearer error=\"insufficient_scope\", scope=\"topics:read\"";
    assert_eq!(refused.header("www-authenticate"), Some(challenge));
    let body = json!({"name": "n", "scopes": "topics:read:b"});
    app.put(&path, body).await.expect(200);
    reads("a").await.expect(403);
    reads("b").await.expect(404);
}

#[tokio::test]
async fn keys_of_a_client_that_is_deleted_or_off_end_at_once_here_and_soon_elsewhere() {
    let app = TestApp::start_with_auth("*").await;
    let other = TestApp::start_on(app.database.share(), &AUTH).await;
    let (deleted, deleted_key) = keyed(&app, "*").await;
    let (off, off_key) = keyed(&app, "*").await;
    for key in [&deleted_key, &off_key] {
        assert_eq!(status(&app, key).await, 200);
        assert_eq!(status(&other, key).await, 200);
    }

    app.delete(&deleted).await.expect(204);
    let body = json!({"name": "n", "scopes": "*", "is_active": false});
    app.put(&off, body).await.expect(200);
    let changed = Instant::now();

    let refused = with_header(&app, "x-api-key", &off_key).await.expect(401);
    assert_eq!(refused.json()["detail"], "Client disabled");
    assert_eq!(status(&app, &deleted_key).await, 401);
    for key in [&deleted_key, &off_key] {
        while status(&other, key).await == 200 {
            assert!(changed.elapsed() < NOTICED_WITHIN);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let body = json!({"name": "n", "scopes": "*", "is_active": true});
    app.put(&off, body).await.expect(200);
    assert_eq!(status(&app, &off_key).await, 200);
}

#[tokio::test]
async fn a_new_key_takes_the_place_of_the_one_before_after_the_overlap() {
    let app = TestApp::start_with_auth("*").await;
    let other = TestApp::start_on(app.database.share(), &AUTH).await;
    let (path, first) = keyed(&app, "*").await;
    assert_eq!(status(&app, &first).await, 200);
    assert_eq!(status(&other, &first).await, 200);

    let second = rotate(&app, &path, 3600).await;
    let until = second["previous_valid_until"].as_str().unwrap();
    let until: chrono::DateTime<chrono::Utc> = until.parse().unwrap();
    let left = until - chrono::Utc::now();
    assert!((3500..=3601).contains(&left.num_seconds()), "{until}");
    for key in [first.as_str(), key_of(&second)] {
        assert_eq!(status(&app, key).await, 200);
        assert_eq!(status(&other, key).await, 200);
    }

    let third = rotate(&app, &path, 3600).await;
    assert_eq!(
        status(&app, &first).await,
        401,
        "a third one ends the first"
    );
    assert_eq!(status(&app, key_of(&second)).await, 200);

    let fourth = rotate(&app, &path, 0).await;
    assert_eq!(fourth["previous_valid_until"], Value::Null);
    let rotated = Instant::now();
    for key in [first.as_str(), key_of(&second), key_of(&third)] {
        assert_eq!(status(&app, key).await, 401);
        while status(&other, key).await == 200 {
            assert!(rotated.elapsed() < NOTICED_WITHIN);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(status(&app, key_of(&fourth)).await, 200);
}

#[tokio::test]
async fn an_overlap_ends_by_itself_and_tokens_stay() {
    let app = TestApp::start_with_auth("*").await;
    let (id, secret) = app.client_with("*").await;
    let body = json!({"client_id": id, "client_secret": secret});
    let token = app.post("/oauth/token", body).await.expect(201).json();
    let path = format!("/clients/{id}");
    let first = rotate(&app, &path, 10).await;
    assert_eq!(first["previous_valid_until"], Value::Null, "it had none");

    rotate(&app, &path, 10).await;
    sqlx::query(
        "update pubsub_data.clients set previous_api_key_until = now()
        where previous_api_key_hash is not null",
    )
    .execute(&app.pool())
    .await
    .unwrap();

    assert_eq!(status(&app, key_of(&first)).await, 401);
    let token = token["access_token"].as_str();
    app.with_token(token).get("/topics").await.expect(200);
}

#[tokio::test]
async fn nobody_gets_a_key_for_more_than_he_may_himself() {
    let app = TestApp::start_with_auth("*").await;
    let (path, key) = keyed(&app, "topics:read topics:publish").await;
    let credentials = format!("{path}/credentials");

    for (own, expected) in [
        ("clients:update topics:read", 403),
        ("clients:create topics:read topics:publish", 403),
        ("clients:update topics:read topics:publish:a", 403),
        ("clients:update:0* topics:read topics:publish", 201),
    ] {
        let (_, own_key) = keyed(&app, own).await;
        for shown in [app.token_for(own).await, own_key] {
            let caller = app.with_token(Some(&shown));
            caller
                .post(&credentials, json!({"overlap_seconds": 60}))
                .await
                .expect(expected);
        }
        if expected == 403 {
            assert_eq!(status(&app, &key).await, 200, "{own}");
        }
    }
}

#[tokio::test]
async fn a_rotation_that_cannot_be_changes_nothing() {
    let app = TestApp::start_with_auth("*").await;
    let (path, key) = keyed(&app, "*").await;
    let credentials = format!("{path}/credentials");

    for body in [
        json!({"overlap_seconds": -1}),
        json!({"overlap_seconds": 604_801}),
        json!({"overlap_seconds": "soon"}),
        json!({"overlap": 1}),
        json!([]),
    ] {
        app.post(&credentials, body).await.expect(422);
    }
    let nobody = "/clients/01890000-0000-7000-8000-000000000001/credentials";
    app.post(nobody, json!({})).await.expect(404);
    app.post("/clients/x/credentials", json!({}))
        .await
        .expect(422);
    assert_eq!(status(&app, &key).await, 200);
}

#[tokio::test]
async fn a_pull_that_waits_ends_with_the_key_it_came_with() {
    let app = TestApp::start_with_auth("*").await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let (path, key) = keyed(&app, "*").await;
    let body = json!({"consumer_id": "c", "wait_seconds": 30});
    let url = format!("{}/subscriptions/s/pull", app.url);
    let request = reqwest::Client::new().post(url).json(&body);
    let started = Instant::now();
    let waiting = tokio::spawn(answer(request.header("x-api-key", key)));
    tokio::time::sleep(Duration::from_millis(300)).await;

    rotate(&app, &path, 0).await;

    waiting.await.unwrap().expect(401);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn keys_are_not_looked_at_while_authentication_is_off() {
    let app = TestApp::start().await;

    with_header(&app, "x-api-key", "garbage").await.expect(200);
    with_header(&app, "x-api-key", &unknown()).await.expect(200);
}

#[tokio::test]
async fn a_key_is_looked_up_once_in_seconds_and_so_is_garbage() {
    let app = TestApp::start_with_auth("*").await;
    let (_, key) = keyed(&app, "*").await;
    count_lookups(&app, 0).await;
    let garbage = unknown();

    let started = Instant::now();
    for _ in 0..50 {
        assert_eq!(status(&app, &key).await, 200);
        assert_eq!(status(&app, &garbage).await, 401);
    }

    let periods = i64::try_from(started.elapsed().as_secs() / 4).unwrap() + 1;
    let count = lookups(&app).await;
    assert!(count <= 2 * periods, "{count}");
}

#[tokio::test]
async fn garbage_of_many_costs_the_database_fifty_calls_a_second_at_most() {
    let app = TestApp::start_with_auth("*").await;
    count_lookups(&app, 0).await;

    let started = Instant::now();
    let senders = (0..20).map(|_| async {
        for _ in 0..15 {
            assert_eq!(status(&app, &unknown()).await, 401);
        }
    });
    futures_util::future::join_all(senders).await;

    let most = i64::try_from(started.elapsed().as_millis() / 20).unwrap() + 2;
    let count = lookups(&app).await;
    assert!(count <= most && count < 300, "{count} of {most}");
}

#[tokio::test]
async fn a_good_key_does_not_wait_behind_garbage() {
    let app = TestApp::start_with_auth("*").await;
    let (path, key) = keyed(&app, "*").await;
    assert_eq!(status(&app, &key).await, 200);
    count_lookups(&app, 5).await;
    let garbage = unknown();
    let slow = async { status(&app, &garbage).await };

    let started = Instant::now();
    let good = async {
        while lookups(&app).await == 0 {
            tokio::task::yield_now().await;
        }
        // so that it has to be looked up again
        let body = json!({"name": "changed", "scopes": "*"});
        app.put(&path, body).await.expect(200);
        assert_eq!(status(&app, &key).await, 200);
        started.elapsed()
    };
    let (slow, good) = tokio::join!(slow, good);

    assert_eq!(slow, 401);
    assert!(good < Duration::from_secs(4), "{good:?}");
}

#[tokio::test]
async fn a_wait_ends_when_the_client_may_consume_no_more() {
    let app = TestApp::start_with_auth("*").await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let (path, key) = keyed(&app, "subscriptions:consume").await;
    let pull = reqwest::Client::new()
        .post(format!("{}/subscriptions/s/pull", app.url))
        .header("x-api-key", key)
        .json(&json!({"consumer_id": "c", "wait_seconds": 30}));
    let begun = Instant::now();
    let waits = tokio::spawn(answer(pull));
    watched_by(&app, 1).await;

    let less = json!({"name": "n", "scopes": "subscriptions:read"});
    app.put(&path, less).await.expect(200);

    waits.await.unwrap().expect(403);
    assert!(begun.elapsed() < Duration::from_secs(25));
}
