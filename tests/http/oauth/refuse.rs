//! Token requests that are refused.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{AUTH, request_form, request_json};
use crate::support::{TestApp, answer};

const INVALID_CLIENT: &str = "Invalid client credentials";

/// Client ids and secrets that get no token: of nobody, wrong, of an inactive client.
async fn bad_credentials(app: &TestApp) -> Vec<(&'static str, String, String)> {
    let (known, secret) = app.client_with("*").await;
    let (inactive, its_secret) = app.client_with("*").await;
    sqlx::query("update pubsub_data.clients set is_active = false where client_id = $1::uuid")
        .bind(&inactive)
        .execute(&app.pool())
        .await
        .unwrap();
    vec![
        ("unknown client", Uuid::now_v7().to_string(), secret.clone()),
        ("wrong secret", known.clone(), "f".repeat(32)),
        ("empty secret", known.clone(), String::new()),
        ("secret in capitals", known, secret.to_uppercase()),
        ("inactive client", inactive, its_secret),
    ]
}

/// Original's defect 17.
#[tokio::test]
async fn a_json_request_is_told_the_same_for_any_bad_credentials() {
    let app = TestApp::start_with(&AUTH).await;

    for (case, id, secret) in bad_credentials(&app).await {
        let answer = request_json(&app, &id, &secret).await;

        assert_eq!(answer.status, 401, "{case}");
        assert_eq!(answer.json(), json!({"detail": INVALID_CLIENT}), "{case}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{case}");
    }
}

/// Original's defect 17.
#[tokio::test]
async fn a_form_request_is_told_the_same_for_any_bad_credentials() {
    let app = TestApp::start_with(&AUTH).await;
    let mut cases = bad_credentials(&app).await;
    // an empty parameter is a missing one
    cases.retain(|(_, _, secret)| !secret.is_empty());
    cases.push(("no UUID", "nobody".to_owned(), "secret".to_owned()));

    for (case, id, secret) in &cases {
        let grant = ("grant_type", "client_credentials");
        let fields = [grant, ("client_id", id), ("client_secret", secret)];
        for answer in [
            request_form(&app, &fields, None).await,
            request_form(&app, &[grant], Some((id, secret))).await,
        ] {
            assert_eq!(answer.status, 401, "{case}");
            let body = json!({"error": "invalid_client", "error_description": INVALID_CLIENT});
            assert_eq!(answer.json(), body, "{case}");
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge, Some("Basic realm=\"fastpubsub\""), "{case}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{case}");
        }
    }
}

#[tokio::test]
async fn another_authorization_than_basic_is_an_invalid_client() {
    let app = TestApp::start_with(&AUTH).await;

    for authorization in ["Bearer abc", "Basic", "Basic ???", "Basic bm9jb2xvbg==", ""] {
        let request = app
            .request("POST", "/oauth/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", authorization)
            .body("grant_type=client_credentials");

        let answer = answer(request).await;

        assert_eq!(answer.status, 401, "{authorization}");
        assert_eq!(answer.json()["error"], "invalid_client", "{authorization}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Basic "), "{authorization}");
    }
}

#[tokio::test]
async fn more_scope_than_the_client_has_is_an_invalid_scope() {
    let app = TestApp::start_with(&AUTH).await;
    let (id, secret) = app.client_with("topics:read subscriptions:read:mine").await;

    for scope in [
        "*",
        "topics:create",
        "topics:read topics:create",
        "subscriptions:read",
        "subscriptions:read:other",
        "topics:read:",
        "topics:read:a:b",
        "topics:read:us*er",
        "topics",
        "nonsense",
    ] {
        let fields = [("grant_type", "client_credentials"), ("scope", scope)];
        let answer = request_form(&app, &fields, Some((&id, &secret))).await;

        assert_eq!(answer.status, 400, "{scope}");
        assert_eq!(
            answer.json(),
            json!({
                "error": "invalid_scope",
                "error_description": "scope asks for more than the client has",
            }),
            "{scope}"
        );
    }
}

#[tokio::test]
async fn another_grant_type_is_unsupported() {
    let app = TestApp::start_with(&AUTH).await;
    let (id, secret) = app.client_with("*").await;

    for grant_type in [
        "password",
        "authorization_code",
        "refresh_token",
        "CLIENT_CREDENTIALS",
    ] {
        let fields = [("grant_type", grant_type)];
        let answer = request_form(&app, &fields, Some((&id, &secret))).await;

        assert_eq!(answer.status, 400, "{grant_type}");
        assert_eq!(
            answer.json(),
            json!({
                "error": "unsupported_grant_type",
                "error_description": "grant_type must be client_credentials",
            }),
            "{grant_type}"
        );
    }
}

#[tokio::test]
async fn an_incomplete_or_ambiguous_form_is_an_invalid_request() {
    let app = TestApp::start_with(&AUTH).await;
    let (id, secret) = app.client_with("*").await;
    let grant = ("grant_type", "client_credentials");
    let client = ("client_id", id.as_str());
    let password = ("client_secret", secret.as_str());
    let basic = Some((id.as_str(), secret.as_str()));
    type Pair<'a> = (&'a str, &'a str);
    let cases: [(&str, &[Pair<'_>], Option<Pair<'_>>); 10] = [
        ("nothing", &[], None),
        ("no grant_type", &[client, password], None),
        (
            "empty grant_type",
            &[("grant_type", ""), client, password],
            None,
        ),
        ("no client_id", &[grant, password], None),
        ("no client_secret", &[grant, client], None),
        (
            "empty client_secret",
            &[grant, client, ("client_secret", "")],
            None,
        ),
        ("two grant_types", &[grant, grant], basic),
        ("two client_ids", &[grant, client, client, password], None),
        (
            "two scopes",
            &[grant, ("scope", "*"), ("scope", "*")],
            basic,
        ),
        ("credentials twice", &[grant, client, password], basic),
    ];

    for (case, fields, basic) in cases {
        let answer = request_form(&app, fields, basic).await;

        assert_eq!(answer.status, 400, "{case}");
        assert_eq!(answer.json()["error"], "invalid_request", "{case}");
        assert!(answer.json()["error_description"].is_string(), "{case}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{case}");
    }
}

#[tokio::test]
async fn a_faulty_json_request_is_422_with_every_fault() {
    let app = TestApp::start_with(&AUTH).await;
    let id = Uuid::now_v7();
    let cases = [
        (
            json!({}),
            vec!["missing client_id", "missing client_secret"],
        ),
        (json!({"client_id": id}), vec!["missing client_secret"]),
        (
            json!({"client_id": "x", "client_secret": 1}),
            vec!["uuid_parsing client_id", "string_type client_secret"],
        ),
        (
            json!({"client_id": 7, "client_secret": null}),
            vec!["uuid_type client_id", "string_type client_secret"],
        ),
        (
            json!({"client_id": id, "client_secret": "a\u{0}b"}),
            vec!["value_error client_secret"],
        ),
        (
            json!({"client_id": id, "client_secret": "x".repeat(1025)}),
            vec!["string_too_long client_secret"],
        ),
    ];

    for (body, expected) in cases {
        let answer = app.post("/oauth/token", body.clone()).await;

        assert_eq!(answer.status, 422, "{body}");
        let faults: Vec<String> = answer.json()["detail"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fault| {
                assert_eq!(fault["loc"][0], "body", "{body}");
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                format!("{} {}", text(&fault["type"]), text(&fault["loc"][1]))
            })
            .collect();
        assert_eq!(faults, expected, "{body}");
    }
}

/// Original's defect 14.
#[tokio::test]
async fn without_a_key_a_token_request_is_refused_clearly() {
    let app = TestApp::start().await;
    let (id, secret) = app.client_with("*").await;

    let json_answer = request_json(&app, &id, &secret).await;
    let fields = [("grant_type", "client_credentials")];
    let form_answer = request_form(&app, &fields, Some((&id, &secret))).await;

    for answer in [&json_answer, &form_answer] {
        assert_eq!(answer.status, 400);
        let body = answer.json();
        assert_eq!(body["error"], "unsupported_grant_type");
        let text = body["error_description"].as_str().unwrap();
        assert!(
            text.contains("FASTPUBSUB_AUTH_SECRET_KEY is not set"),
            "{text}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    // and in the Python original's form to who asked in it
    assert_eq!(
        json_answer.json()["detail"],
        json_answer.json()["error_description"]
    );
    assert_eq!(form_answer.json().as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn who_asks_as_rfc_6749_says_is_refused_as_it_says() {
    let flags = [
        &AUTH[..],
        &[
            "--api-max-body-bytes",
            "1024",
            "--api-max-message-bytes",
            "512",
        ],
    ];
    let app = TestApp::start_with(&flags.concat()).await;
    let (id, secret) = app.client_with("*").await;
    let form = "application/x-www-form-urlencoded";
    let large = format!("grant_type=client_credentials&x={}", "x".repeat(2000));
    let good = "grant_type=client_credentials";

    for (case, content_type, body, status, error) in [
        (
            "another type",
            Some("text/plain"),
            good,
            400,
            "invalid_request",
        ),
        (
            "multipart",
            Some("multipart/form-data"),
            good,
            400,
            "invalid_request",
        ),
        ("no type", None, good, 400, "invalid_request"),
        (
            "too large",
            Some(form),
            large.as_str(),
            413,
            "invalid_request",
        ),
        (
            "another grant",
            Some(form),
            "grant_type=password",
            400,
            "unsupported_grant_type",
        ),
    ] {
        let mut request = app.request("POST", "/oauth/token").body(body.to_owned());
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let answer = answer(request.basic_auth(&id, Some(&secret))).await;

        assert_eq!(answer.status, status, "{case}: {}", answer.body);
        assert_eq!(answer.json()["error"], error, "{case}");
        assert!(answer.json()["error_description"].is_string(), "{case}");
        assert_eq!(answer.json().as_object().unwrap().len(), 2, "{case}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/json"),
            "{case}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{case}");
    }
    let twice = app
        .request("POST", "/oauth/token")
        .header("content-type", form)
        .header("authorization", "Basic eDp5")
        .header("authorization", "Basic eDp6")
        .body(good);
    assert_eq!(
        answer(twice).await.expect(400).json()["error"],
        "invalid_request"
    );
}

#[tokio::test]
async fn a_defect_is_a_server_error_to_a_form() {
    let app = TestApp::start_with(&AUTH).await;
    let (id, secret) = app.client_with("*").await;
    sqlx::query("alter function pubsub.client_credentials(uuid) rename to gone")
        .execute(&app.pool())
        .await
        .unwrap();
    let fields = [("grant_type", "client_credentials")];

    let answer = request_form(&app, &fields, Some((&id, &secret))).await;

    assert_eq!(answer.status, 500, "{}", answer.body);
    let body = json!({"error": "server_error", "error_description": "internal server error"});
    assert_eq!(answer.json(), body);
}
