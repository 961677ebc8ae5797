//! Random requests, composed of parts that are each plausible or hostile.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::{KEY, door};
use crate::support::random::filled;

const METHODS: &[&str] = &[
    "GET", "GET", "POST", "POST", "POST", "PUT", "DELETE", "PATCH",
];
const PATHS: &[&str] = &[
    "/api/v1/queues/ID/messages",
    "/api/v1/queues/ID/messages",
    "/api/v1/queues/ID/messages/receive",
    "/api/v1/queues/ID/messages/receive",
    "/api/v1/queues/ID/messages/ID",
    "/api/v1/queues/ID/messages/by-id/ID",
    "/api/v1/queues/ID/messages/check-existence",
    "/api/v1/queues/ID/message/ID",
    "/api/v1/queues/ID/info",
    "/api/v1/queues/ID/health",
    "/api/v1/queues",
    "/api/v1/auth/me",
    "/api/v1/auth/permissions/ID",
    "/api/v1/health",
    "/health",
    "/ID",
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
    "rAaIlJz7vcACAAAAAAAAAAgAcPOZagT1Y",
];
const QUERIES: &[&str] = &[
    "",
    "",
    "?max_messages=X",
    "?visibility_timeout=X",
    "?consumer_id=X",
    "?only_new=X",
    "?delete_after_receive=X",
    "?limit=X&offset=X",
    "?consumer_id=X&only_new=true",
    "?%00=%zz&&=",
];
const BODIES: &[&str] = &[
    "",
    "null",
    r#"{"id": X, "message_body": X}"#,
    r#"{"message_body": {"a": X}}"#,
    r#"{"message": X, "id": "m"}"#,
    r#"{"id": "m", "message_body": {}}"#,
    r#"{"message_ids": [X, "m"]}"#,
    r#"{"message_ids": X}"#,
    "[X",
    "X",
    r#"{"id": "m", "id": X, "message_body": {}, "message_body": X}"#,
];

#[tokio::test]
async fn no_request_is_a_defect() {
    let door = door().await;
    let mut random = StdRng::seed_from_u64(12);
    let client = reqwest::Client::new();
    let mut seen = std::collections::BTreeMap::new();
    for n in 0..2000 {
        let place = &door.places()[n % 2];
        let mut path = String::new();
        for (at, part) in PATHS.choose(&mut random).unwrap().split("ID").enumerate() {
            if at > 0 {
                path += IDS.choose(&mut random).unwrap();
            }
            path += part;
        }
        let query = QUERIES.choose(&mut random).unwrap();
        let query = filled(&mut random, query).replace(' ', "+");
        let method = METHODS.choose(&mut random).unwrap();
        let body = BODIES.choose(&mut random).unwrap();
        let body = filled(&mut random, body);
        let url = format!("{}{path}{query}", place.url);
        let Ok(url) = url.parse::<reqwest::Url>() else {
            continue;
        };
        let mut request = client
            .request(method.parse().unwrap(), url)
            .header("X-API-Key", KEY)
            .body(body.clone());
        if random.random_bool(0.8) {
            request = request.header("Content-Type", "application/json");
        }

        let answer = place.tell(request).await;

        assert!(
            answer.status < 500,
            "{method} {path}{query} {body}: {}",
            answer.body
        );
        *seen.entry(answer.status).or_insert(0) += 1;
    }
    for status in [200, 404, 405, 422] {
        assert!(
            seen.get(&status).is_some_and(|count| *count > 20),
            "{seen:?}"
        );
    }
}
