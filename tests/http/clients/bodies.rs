//! What bodies and ids of `/clients` are taken.

use serde_json::{Value, json};

use super::{NOBODY, create};
use crate::support::{Answer, TestApp};

/// The faults of a refusal, as `type field`.
fn faults(answer: &Answer) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let faults = answer.json()["detail"].as_array().unwrap().clone();
    faults
        .iter()
        .map(|fault| format!("{} {}", text(&fault["type"]), text(&fault["loc"][1])))
        .collect()
}

#[tokio::test]
async fn an_id_that_is_no_uuid_is_422() {
    let app = TestApp::start().await;

    for id in ["nope", "01890000-0000-7000-8000-00000000000", "7"] {
        let path = format!("/clients/{id}");
        for answer in [
            app.get(&path).await,
            app.put(&path, json!({"name": "n", "scopes": "*"})).await,
            app.delete(&path).await,
        ] {
            let answer = answer.expect(422).json();
            let reason = answer["detail"][0]["ctx"]["error"].as_str().unwrap();
            assert_eq!(
                answer,
                json!({"detail": [{
                    "type": "uuid_parsing",
                    "loc": ["path", "id"],
                    "msg": format!("Input should be a valid UUID, {reason}"),
                    "input": id,
                    "ctx": {"error": reason},
                }]})
            );
        }
    }
}

#[tokio::test]
async fn name_and_scopes_are_trimmed() {
    let app = TestApp::start().await;
    let body = json!({"name": "  My App\n", "scopes": "\t topics:read  topics:publish:a "});

    let path = format!("/clients/{}", create(&app, body.clone()).await.0);
    let created = app.get(&path).await.expect(200).json();
    let updated = app.put(&path, body).await.expect(200).json();

    for client in [created, updated] {
        assert_eq!(client["name"], "My App");
        assert_eq!(client["scopes"], "topics:read  topics:publish:a");
    }
}

#[tokio::test]
async fn a_faulty_body_is_422_with_every_fault() {
    let app = TestApp::start().await;
    let long = "x".repeat(1025);

    for (body, expected) in [
        (json!({}), vec!["missing name", "missing scopes"]),
        (
            json!({"name": "", "scopes": " "}),
            vec!["string_too_short name", "string_too_short scopes"],
        ),
        (
            json!({"name": 1, "scopes": null}),
            vec!["string_type name", "string_type scopes"],
        ),
        (
            json!({"name": long, "scopes": "*"}),
            vec!["string_too_long name"],
        ),
        (
            json!({"name": "a\u{0}b", "scopes": "*"}),
            vec!["value_error name"],
        ),
        (
            json!({"name": "n", "scopes": "x", "is_active": "maybe"}),
            vec!["value_error scopes", "bool_parsing is_active"],
        ),
        (
            json!({"name": "n", "scopes": "*", "is_active": null}),
            vec!["bool_type is_active"],
        ),
    ] {
        let (post, put) = (
            app.post("/clients", body.clone()).await,
            app.put(NOBODY, body.clone()).await,
        );

        assert_eq!((post.status, put.status), (422, 422), "{body}");
        assert_eq!(faults(&post), expected, "{body}");
        assert_eq!(faults(&put), expected, "{body}");
    }
}

#[tokio::test]
async fn is_active_is_converted_like_the_original() {
    let app = TestApp::start().await;

    for (given, expected) in [
        (json!("no"), false),
        (json!("OFF"), false),
        (json!(0), false),
        (json!("yes"), true),
        (json!(1), true),
    ] {
        let body = json!({"name": "n", "scopes": "*", "is_active": given});
        let path = format!("/clients/{}", create(&app, body).await.0);
        let client = app.get(&path).await.expect(200).json();

        assert_eq!(client["is_active"], json!(expected), "{given}");
    }
}

#[tokio::test]
async fn every_scope_is_accepted_and_so_are_its_objects() {
    let app = TestApp::start().await;

    for scopes in [
        "*",
        "topics:create topics:read topics:delete topics:publish",
        "subscriptions:create subscriptions:read subscriptions:delete subscriptions:consume",
        "clients:create clients:read clients:update clients:delete",
        "topics:read:a topics:delete:a topics:publish:a.b_c-d",
        "subscriptions:read:a subscriptions:delete:a subscriptions:consume:a",
        "topics:create:user-* topics:publish:user-* subscriptions:consume:team-a.*",
        "topics:subscribe topics:subscribe:a subscriptions:create:a subscriptions:read:*",
        "clients:read:01890000-0000-7000-8000-000000000001 clients:update:0189* clients:delete:*",
    ] {
        let path = format!(
            "/clients/{}",
            create(&app, json!({"name": "n", "scopes": scopes})).await.0
        );

        assert_eq!(app.get(&path).await.json()["scopes"], json!(scopes));
    }
}

/// Original's defect 16.
#[tokio::test]
async fn a_scope_that_can_never_match_is_refused() {
    let app = TestApp::start().await;
    let path = format!(
        "/clients/{}",
        create(&app, json!({"name": "n", "scopes": "*"})).await.0
    );

    for scope in [
        "clients:create:x",
        "clients:create:*",
        "clients:read:not-a-uuid",
        "clients:read:not-*",
        "topics:publish:us*er",
        "topics:publish:*er",
        "topics:publish:a/b",
        "topics:publish:caf\u{e9}",
        &format!("topics:publish:{}", "x".repeat(129)),
        "topics:read:",
        "topics:read:a:b",
        "topics:consume",
        "subscriptions:publish",
        "subscriptions:replay",
        "clients:publish",
        "topic:read",
        "subscription:read",
        "client:read",
        "topics",
        "topics:",
        ":read",
        "TOPICS:READ",
        "**",
        "*:*",
    ] {
        let body = json!({"name": "n", "scopes": format!("topics:read {scope}")});
        for answer in [
            app.post("/clients", body.clone()).await,
            app.put(&path, body.clone()).await,
        ] {
            assert_eq!(answer.status, 422, "{scope}");
            assert_eq!(
                answer.json(),
                json!({"detail": [{
                    "type": "value_error",
                    "loc": ["body", "scopes"],
                    "msg": format!("Value error, Invalid scope {scope}"),
                    "input": body["scopes"],
                    "ctx": {"error": {}},
                }]})
            );
        }
    }
    assert_eq!(app.get(&path).await.json()["scopes"], "*");
}
