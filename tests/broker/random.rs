//! Random requests, composed of parts that are each plausible or hostile.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::{KEY, door};
use crate::support::random::filled;

const METHODS: &[&str] = &[
    "GET", "GET", "POST", "POST", "POST", "PUT", "DELETE", "PATCH",
];
const PATHS: &[(&str, &str)] = &[
    ("PUT", "/api/v1/queues/ID"),
    ("POST", "/api/v1/queues/ID/publish"),
    ("POST", "/api/v1/queues/ID/publish"),
    ("POST", "/api/v1/queues/ID/pull"),
    ("POST", "/api/v1/queues/ID/pull"),
    ("POST", "/api/v1/queues/ID/ack"),
    ("POST", "/api/v1/queues/ID/nack"),
    ("GET", "/api/v1/queues/ID/peek"),
    ("GET", "/api/v1/queues/ID/stats"),
    ("DELETE", "/api/v1/queues/ID/messages"),
    ("PUT", "/api/v1/topics/ID"),
    ("POST", "/api/v1/topics/ID/publish"),
    ("POST", "/api/v1/topics/ID/publish"),
    ("POST", "/api/v1/topics/ID/subscriptions"),
    ("DELETE", "/api/v1/topics/ID/subscriptions/ID"),
    ("POST", "/api/v1/topics/ID/pull"),
    ("POST", "/api/v1/topics/ID/ack"),
    ("POST", "/api/v1/topics/ID/nack"),
    ("GET", "/api/v1/topics/ID/stats"),
    ("GET", "/api/v1/stats"),
    ("GET", "/health"),
    ("GET", "/ID"),
];
const IDS: &[&str] = &[
    "q",
    "q",
    "q",
    "m",
    "x",
    "%00",
    "%ff",
    "%2f",
    "%zz",
    "a%20b",
    "%F0%9F%98%80",
    "..",
    "'",
    "*",
    "q.DLQ",
];
const QUERIES: &[&str] = &[
    "",
    "",
    "?limit=X",
    "?auto_ack=X",
    "?wait_seconds=X&auto_ack=true",
    "?subscription_id=X",
    "?routing_key=X",
    "?%00=%zz&&=",
];
const BODIES: &[&str] = &[
    "",
    "",
    "null",
    r#"{"message": X}"#,
    r#"{"message": X, "idempotency_key": X}"#,
    r#"{"message": {"a": X}, "priority": X}"#,
    r#"{"message": 1, "delay_seconds": X, "ttl_seconds": X}"#,
    r#"{"message": X, "routing_key": X}"#,
    r#"{"message": 1, "message": X}"#,
    r#"{"delivery_tag": X}"#,
    r#"{"delivery_tag": "dtag-rAaIlJz7vcACAAAAAAAAAAgAcPOZagT1Y.YnJva2VyL3F1ZXVlcy9x"}"#,
    r#"{"delivery_tag": "dtag-rAaIlJz7vcACAAAAAAAAAAgAcPOZagT1Y.YnJva2VyL3F1ZXVlcy9x", "requeue": X}"#,
    r#"{"mode": "pull", "routing_key": X}"#,
    r#"{"mode": X, "endpoint": X}"#,
    r#"{"wait_seconds": 0.01, "auto_ack": X}"#,
    r#"{"subscription_id": X}"#,
    "[X",
    "X",
];

#[tokio::test]
async fn no_request_is_a_defect() {
    let door = door().await;
    let mut random = StdRng::seed_from_u64(13);
    let client = reqwest::Client::new();
    let mut seen = std::collections::BTreeMap::new();
    for n in 0..2000 {
        let place = &door.places()[n % 2];
        let mut path = String::new();
        let (fitting, form) = PATHS.choose(&mut random).unwrap();
        for (at, part) in form.split("ID").enumerate() {
            if at > 0 {
                path += IDS.choose(&mut random).unwrap();
            }
            path += part;
        }
        let query = QUERIES.choose(&mut random).unwrap();
        let query = filled(&mut random, query).replace(' ', "+");
        // a wait would be one
        let query = query.replace("wait_seconds=1&", "wait_seconds=0&");
        let method = match random.random_bool(0.8) {
            true => fitting,
            false => METHODS.choose(&mut random).unwrap(),
        };
        let body = BODIES.choose(&mut random).unwrap();
        let body = filled(&mut random, body);
        let url = format!("{}{path}{query}", place.url);
        let Ok(url) = url.parse::<reqwest::Url>() else {
            continue;
        };
        let mut request = client
            .request(method.parse().unwrap(), url)
            .bearer_auth(KEY)
            .body(body.clone());
        if random.random_bool(0.8) {
            request = request.header("Content-Type", "application/json");
        }

        let answer = place.answer(request).await;

        assert!(
            answer.status < 500,
            "{method} {path}{query} {body}: {}",
            answer.body
        );
        *seen.entry(answer.status).or_insert(0) += 1;
    }
    for status in [200, 201, 404, 405, 422] {
        assert!(
            seen.get(&status).is_some_and(|count| *count > 20),
            "{seen:?}"
        );
    }
}
