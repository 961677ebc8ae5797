//! `/clients`.

mod api_keys;
mod bodies;
mod grants;

use std::collections::BTreeSet;

use chrono::DateTime;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::support::{SECRET_KEY, TestApp};

const NOBODY: &str = "/clients/01890000-0000-7000-8000-000000000001";

/// A new client: its id and secret.
async fn create(app: &TestApp, body: Value) -> (String, String) {
    let created = app.post("/clients", body).await.expect(201).json();
    let text = |name: &str| created[name].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

#[tokio::test]
async fn a_client_is_created_with_an_id_and_a_secret() {
    let app = TestApp::start().await;

    let body = json!({"name": "My App", "scopes": "*", "is_active": true});
    let created = app.post("/clients", body).await.expect(201).json();

    let names: BTreeSet<&String> = created.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        BTreeSet::from([&"id".to_owned(), &"secret".to_owned()])
    );
    let id = created["id"].as_str().unwrap();
    assert_eq!(id.len(), 36);
    assert_eq!(Uuid::parse_str(id).unwrap().get_version_num(), 7);
    let secret = created["secret"].as_str().unwrap();
    assert_eq!(secret.len(), 32);
    assert!(secret.chars().all(|c| c.is_ascii_hexdigit()), "{secret}");
}

#[tokio::test]
async fn a_client_is_shown_without_its_secret() {
    let app = TestApp::start().await;
    let (id, _) = create(&app, json!({"name": "My App", "scopes": "topics:read"})).await;

    let client = app.get(&format!("/clients/{id}")).await.expect(200).json();

    assert_eq!(
        client,
        json!({
            "id": id,
            "name": "My App",
            "scopes": "topics:read",
            "is_active": true,
            "token_version": 1,
            "created_at": client["created_at"],
            "updated_at": client["updated_at"],
        })
    );
    for name in ["created_at", "updated_at"] {
        let time = client[name].as_str().unwrap();
        assert!(DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
        assert_eq!(time.len(), "2025-01-31T10:00:00.000000Z".len(), "{time}");
        assert!(time.ends_with('Z'), "{time}");
    }
}

#[tokio::test]
async fn a_client_is_found_by_its_id_without_dashes() {
    let app = TestApp::start().await;
    let (id, _) = create(&app, json!({"name": "n", "scopes": "*"})).await;

    let path = format!("/clients/{}", id.replace('-', ""));

    assert_eq!(app.get(&path).await.expect(200).json()["id"], json!(id));
}

#[tokio::test]
async fn clients_are_listed_in_creation_order_page_by_page() {
    let app = TestApp::start().await;
    let mut ids = Vec::new();
    for number in 0..12 {
        // names and scopes in the opposite order
        let name = format!("{:02}", 99 - number);
        ids.push(create(&app, json!({"name": name, "scopes": "*"})).await.0);
    }

    for (query, expected) in [
        ("", &ids[..10]),
        ("?limit=100", &ids[..]),
        ("?limit=1", &ids[..1]),
        ("?offset=1&limit=1", &ids[1..2]),
        ("?offset=10", &ids[10..]),
        ("?offset=12", &[]),
        ("?offset=9223372036854775807", &[]),
    ] {
        let page = app
            .get(&format!("/clients{query}"))
            .await
            .expect(200)
            .json();

        let listed: Vec<&Value> = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|client| &client["id"])
            .collect();
        assert_eq!(listed, expected.iter().collect::<Vec<_>>(), "{query}");
        assert_eq!(page.as_object().unwrap().len(), 1, "{query}");
    }
}

#[tokio::test]
async fn a_listed_client_looks_like_a_single_one() {
    let app = TestApp::start().await;
    let (id, _) = create(&app, json!({"name": "n", "scopes": "*"})).await;

    let list = app.get("/clients").await.expect(200).json();
    let one = app.get(&format!("/clients/{id}")).await.expect(200).json();

    assert_eq!(list, json!({"data": [one]}));
}

#[tokio::test]
async fn an_update_replaces_the_settings_and_raises_the_token_version() {
    let app = TestApp::start().await;
    let (id, _) = create(&app, json!({"name": "old", "scopes": "*"})).await;
    let path = format!("/clients/{id}");
    let before = app.get(&path).await.expect(200).json();

    let body = json!({"name": "new", "scopes": "topics:read", "is_active": false});
    let once = app.put(&path, body.clone()).await.expect(200).json();
    let twice = app.put(&path, body).await.expect(200).json();

    assert_eq!(
        once,
        json!({
            "id": id,
            "name": "new",
            "scopes": "topics:read",
            "is_active": false,
            "token_version": 2,
            "created_at": before["created_at"],
            "updated_at": once["updated_at"],
        })
    );
    let updated_at = [&before, &once, &twice].map(|client| client["updated_at"].as_str().unwrap());
    assert!(updated_at.is_sorted_by(|a, b| a < b), "{updated_at:?}");
    assert_eq!(twice["token_version"], json!(3));
    assert_eq!(app.get(&path).await.expect(200).json(), twice);
}

/// Original's defect 15.
#[tokio::test]
async fn an_update_that_does_not_say_leaves_is_active_as_it_is() {
    let app = TestApp::start().await;

    for is_active in [false, true] {
        let body = json!({"name": "n", "scopes": "*", "is_active": is_active});
        let path = format!("/clients/{}", create(&app, body).await.0);
        let updated = app.put(&path, json!({"name": "m", "scopes": "*"})).await;

        assert_eq!(updated.expect(200).json()["is_active"], json!(is_active));
        assert_eq!(app.get(&path).await.json()["is_active"], json!(is_active));
    }
}

#[tokio::test]
async fn a_disabled_client_is_enabled_again_by_saying_so() {
    let app = TestApp::start().await;
    let body = json!({"name": "n", "scopes": "*", "is_active": false});
    let path = format!("/clients/{}", create(&app, body).await.0);

    let body = json!({"name": "n", "scopes": "*", "is_active": true});
    app.put(&path, body).await.expect(200);

    assert_eq!(app.get(&path).await.json()["is_active"], json!(true));
}

#[tokio::test]
async fn a_deleted_client_is_gone() {
    let app = TestApp::start().await;
    let path = format!(
        "/clients/{}",
        create(&app, json!({"name": "n", "scopes": "*"})).await.0
    );

    let deleted = app.delete(&path).await.expect(204);

    assert_eq!(deleted.body, "");
    app.get(&path).await.expect(404);
    assert_eq!(app.get("/clients").await.json(), json!({"data": []}));
}

#[tokio::test]
async fn an_unknown_client_is_not_found() {
    let app = TestApp::start().await;

    let answers = [
        app.get(NOBODY).await,
        app.put(NOBODY, json!({"name": "n", "scopes": "*"})).await,
        app.delete(NOBODY).await,
    ];

    for answer in answers {
        assert_eq!(
            answer.expect(404).json(),
            json!({"detail": "Client not found"})
        );
    }
}

#[tokio::test]
async fn a_secret_is_stored_as_its_hash_only() {
    let app = TestApp::start().await;
    let (id, secret) = create(&app, json!({"name": "n", "scopes": "*"})).await;

    let (hash, row): (String, String) = sqlx::query_as(
        "select secret_hash, to_jsonb(c)::text from pubsub_data.clients c
        where client_id = $1::uuid",
    )
    .bind(id)
    .fetch_one(&app.pool())
    .await
    .unwrap();

    let digest: String = Sha256::digest(&secret)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hash, format!("sha256${digest}"));
    assert!(!row.contains(&secret), "{row}");
}

#[tokio::test]
async fn a_secret_is_never_shown_again() {
    let app = TestApp::start_with(&["--auth-secret-key", SECRET_KEY]).await;
    let (id, secret) = create(&app, json!({"name": "n", "scopes": "*"})).await;
    let path = format!("/clients/{id}");
    let credentials = json!({"client_id": id, "client_secret": secret});

    let answers = [
        app.get(&path).await,
        app.get("/clients").await,
        app.post("/oauth/token", credentials).await,
        app.put(&path, json!({"name": "m", "scopes": "*"})).await,
        app.get("/metrics").await,
        app.delete(&path).await,
    ];

    for answer in answers {
        assert!(answer.status < 300, "{answer:?}");
        for shown in [answer.body.clone(), format!("{:?}", answer.headers)] {
            assert!(!shown.contains(&secret), "{shown}");
            assert!(!shown.contains("secret"), "{shown}");
            assert!(!shown.contains("sha256$"), "{shown}");
        }
    }
}
