//! `/docs`, `/redoc` and `/openapi.json`.

use serde_json::{Value, json};

use crate::support::{TestApp, answer};

/// The addresses that a page loads or links, resolved.
fn addresses(path: &str, page: &str) -> Vec<String> {
    let folder = &path[..=path.rfind('/').unwrap()];
    [
        "src=\"",
        "href=\"",
        "src='",
        "href='",
        "spec-url=\"",
        "url: \"",
    ]
    .iter()
    .flat_map(|attribute| page.split(attribute).skip(1))
    .map(|rest| rest.split(['"', '\'']).next().unwrap())
    .filter(|address| !address.starts_with("data:"))
    .map(|address| match address.starts_with('/') {
        true => address.to_owned(),
        false => format!("{folder}{address}"),
    })
    .collect()
}

/// Contract point 11.
#[tokio::test]
async fn the_documentation_needs_no_other_host() {
    let app = TestApp::start_with_auth("topics:read").await;
    let nobody = app.with_token(None);

    for path in ["/docs", "/redoc", "/docs/oauth2-redirect"] {
        let page = nobody.get(path).await.expect(200);
        let content_type = page.header("content-type").unwrap();
        assert!(
            content_type.starts_with("text/html"),
            "{path}: {content_type}"
        );
        for address in ["http://", "https://", "=\"//", "='//"] {
            assert!(!page.body.contains(address), "{path} names {address}");
        }
        let addresses = addresses(path, &page.body);
        assert!(!addresses.is_empty(), "{path} loads nothing");
        for address in addresses {
            let file = nobody.get(&address).await;
            assert_eq!(file.status, 200, "{path} loads {address}");
            assert!(!file.body.is_empty(), "{path} loads {address}");
            let content_type = file.header("content-type").unwrap();
            let expected = match address.rsplit_once('.') {
                Some((_, "js")) => "javascript",
                Some((_, "css")) => "text/css",
                _ => "application/json",
            };
            assert!(content_type.contains(expected), "{address}: {content_type}");
        }
    }
}

/// A proxy may serve it under `/pubsub/docs`, and hand it `/docs`.
#[tokio::test]
async fn the_documentation_works_behind_a_path_prefix() {
    let app = TestApp::start().await;

    for path in ["/docs", "/redoc"] {
        let page = app.get(path).await.expect(200).body;
        for absolute in ["src=\"/", "href=\"/", "url=\"/", "url: \"/", "origin +"] {
            assert!(!page.contains(absolute), "{path} has {absolute}");
        }
    }
    let document = app.get("/openapi.json").await.expect(200).json();
    assert_eq!(document["servers"], json!([{"url": "./"}]));
}

#[tokio::test]
async fn the_scripts_of_the_documentation_load_nothing_from_another_host() {
    let app = TestApp::start().await;

    for path in [
        "/docs/swagger-ui-bundle.js",
        "/docs/oauth2-redirect.js",
        "/redoc/redoc.standalone.js",
    ] {
        let script = app.get(path).await.expect(200).body;
        for address in [
            "src:\"http",
            "src=\"http",
            "src:\"//",
            "https://cdn.",
            "https://fonts.",
            "@import",
        ] {
            let found = script
                .find(address)
                .map(|at| &script[at..script.len().min(at + 60)]);
            assert_eq!(found, None, "{path}");
        }
    }
}

/// Contract point 11.
#[tokio::test]
async fn every_documented_route_exists_and_answers_as_documented() {
    let app = TestApp::start().await;
    let document = app.get("/openapi.json").await.expect(200);
    assert_eq!(document.header("content-type"), Some("application/json"));
    let document = document.json();
    let mut routes = 0;

    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let method = method.to_uppercase();
            let target = path.replace("{id}", "x");
            for body in [None, Some(json!([])), Some(json!({}))] {
                let mut request = app.request(&method, &target);
                if let Some(body) = &body {
                    request = request.json(body);
                }
                let answer = answer(request).await;

                let what = format!(
                    "{method} {path} {body:?}: {} {}",
                    answer.status, answer.body
                );
                assert_ne!(answer.body, r#"{"detail":"Not Found"}"#, "{what}");
                let responses = operation["responses"].as_object().unwrap();
                assert!(responses.contains_key(&answer.status.to_string()), "{what}");
            }
            routes += 1;
        }
    }

    assert!(routes >= 24, "{routes}");
}

/// Contract point 11.
#[tokio::test]
async fn the_document_describes_every_route_of_the_contract_and_its_errors() {
    let app = TestApp::start().await;
    let document = app.get("/openapi.json").await.expect(200).json();
    let everywhere = [401, 403, 422, 500, 503];

    for (method, path, statuses) in [
        ("post", "/topics", &[201, 409, 413][..]),
        ("get", "/topics", &[200]),
        ("get", "/topics/{id}", &[200, 404]),
        ("delete", "/topics/{id}", &[204, 404]),
        ("post", "/topics/{id}/messages", &[204, 404, 413]),
        ("post", "/subscriptions", &[201, 404, 409, 413]),
        ("get", "/subscriptions", &[200]),
        ("get", "/subscriptions/{id}", &[200, 404]),
        ("delete", "/subscriptions/{id}", &[204, 404]),
        ("get", "/subscriptions/{id}/messages", &[200, 404]),
        ("post", "/subscriptions/{id}/acks", &[204, 404, 413]),
        ("post", "/subscriptions/{id}/nacks", &[204, 404, 413]),
        ("post", "/subscriptions/{id}/pull", &[200, 404, 413]),
        ("post", "/subscriptions/{id}/settle", &[200, 404, 413]),
        ("get", "/subscriptions/{id}/dlq", &[200, 404]),
        (
            "post",
            "/subscriptions/{id}/dlq/reprocess",
            &[204, 404, 413],
        ),
        ("get", "/subscriptions/{id}/metrics", &[200, 404]),
        ("post", "/clients", &[201, 413]),
        ("get", "/clients", &[200]),
        ("get", "/clients/{id}", &[200, 404]),
        ("put", "/clients/{id}", &[200, 404, 413]),
        ("delete", "/clients/{id}", &[204, 404]),
        ("post", "/oauth/token", &[200, 201, 400, 401, 413, 422]),
    ] {
        let operation = &document["paths"][path][method];
        assert!(operation["summary"].is_string(), "{method} {path}");
        let everywhere = if path == "/oauth/token" {
            &[][..]
        } else {
            &everywhere
        };
        for status in statuses.iter().chain(everywhere) {
            let response = &operation["responses"][status.to_string()];
            assert!(response.is_object(), "{method} {path} {status}");
            let described = response["content"] != Value::Null;
            assert_eq!(described, *status != 204, "{method} {path} {status}");
        }
    }
    let monitoring = &document["paths"];
    for (path, status) in [
        ("/liveness", "200"),
        ("/readiness", "503"),
        ("/metrics", "200"),
    ] {
        let response = &monitoring[path]["get"]["responses"][status];
        assert!(response.is_object(), "{path} {status}");
    }
}
