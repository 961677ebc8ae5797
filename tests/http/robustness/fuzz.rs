//! Random requests, composed of parts that are each plausible or hostile.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use serde_json::Value;

use super::{UNKNOWN_CLIENT, app, contents, request, send, show};

const METHODS: &[&str] = &[
    "GET", "GET", "POST", "POST", "POST", "PUT", "DELETE", "HEAD", "PATCH", "FOO",
];
const PATHS: &[&str] = &[
    "/topics",
    "/topics/ID",
    "/topics/ID/messages",
    "/subscriptions",
    "/subscriptions/ID",
    "/subscriptions/ID/messages",
    "/subscriptions/ID/acks",
    "/subscriptions/ID/nacks",
    "/subscriptions/ID/pull",
    "/subscriptions/ID/settle",
    "/subscriptions/ID/dlq",
    "/subscriptions/ID/dlq/reprocess",
    "/subscriptions/ID/parked",
    "/subscriptions/ID/parked/resume",
    "/messages/ID",
    "/transactions",
    "/subscriptions/ID/metrics",
    "/subscriptions/ID/filter-preview",
    "/subscriptions/ID/seek",
    "/jobs",
    "/jobs/ID",
    "/snapshots",
    "/snapshots/ID",
    "/clients",
    "/clients/ID",
    "/oauth/token",
    "/liveness",
    "/readiness",
    "/docs/ID",
    "/ID",
    "/topics/ID/",
];
const IDS: &[&str] = &[
    "t",
    "t",
    "s",
    "s",
    "x",
    "%00",
    "%ff",
    "%2f",
    "%zz",
    "a%20b",
    "%F0%9F%98%80",
    "..",
    "'",
    "{id}",
    UNKNOWN_CLIENT,
];
const NAMES: &[&str] = &[
    "consumer_id",
    "batch_size",
    "offset",
    "limit",
    "x",
    "%00",
    "",
];
const VALUES: &[&str] = &[
    "",
    "0",
    "1",
    "7",
    "-1",
    "100",
    "101",
    "9223372036854775807",
    "9223372036854775808",
    "1e9",
    "NaN",
    "%00",
    "%zz",
    "%ff",
    "true",
    "c",
    "null",
];
const FIELDS: &[&str] = &[
    "id",
    "topic_id",
    "filter",
    "max_delivery_attempts",
    "backoff_min_seconds",
    "backoff_max_seconds",
    "ack_deadline_seconds",
    "name",
    "scopes",
    "is_active",
    "time",
    "to",
    "snapshot_id",
    "subscription_id",
    "max_rate",
    "client_id",
    "client_secret",
    "a",
    "\\u0000",
    "",
];
const SCALARS: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "1.5",
    "2.0",
    "2147483647",
    "2147483648",
    "9223372036854775808",
    "1e300",
    "1e400",
    "NaN",
    "\"\"",
    "\"t\"",
    "\"s\"",
    "\"new\"",
    "\"a b\"",
    "\"*\"",
    "\"7\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\u{e9}😀\"",
    "\"topics:read\"",
    "\"01890000-0000-7000-8000-000000000000\"",
];
const CONTENT_TYPES: &[&str] = &[
    "",
    "",
    "",
    "application/json",
    "application/json",
    "text/plain",
    "application/x-www-form-urlencoded",
    "\u{e9}",
];

/// Bodies of the right form but for an X, which stands for any scalar.
const FORMS: &[&str] = &[
    r#"{"id":X}"#,
    r#"{"id":"new","topic_id":X,"filter":{"a":[X]}}"#,
    r#"{"filter":{"a":[{"prefix":X}],"b":{"c":[{"numeric":[">",X]}, X]}}}"#,
    r#"{"filter":{"a":[{"anything-but":[X]}],"attributes":{"c":[{"suffix":X}]}},"last":X}"#,
    r#"{"id":X,"topic_id":"t","max_delivery_attempts":X}"#,
    r#"{"id":"new","topic_id":"t","backoff_min_seconds":X,"backoff_max_seconds":X}"#,
    r#"{"id":"other","topic_id":"t","ack_deadline_seconds":X,"filter":{"a":[1,X],"b":[X]}}"#,
    r#"{"name":X,"scopes":X,"is_active":X}"#,
    r#"{"client_id":X,"client_secret":X}"#,
    r#"[{"a":X},{"b":[X,{"c":X}]}]"#,
    "[X]",
    "[]",
    r#"{"all":X,"limit":X,"per_second":X}"#,
    r#"{"filter":X,"limit":1}"#,
    r#"{"message_ids":[X],"action":X}"#,
    r#"{"message_ids":X,"action":"retry"}"#,
    r#"{"acks":[{"subscription_id":X,"receipt":X}]}"#,
    r#"{"publishes":[{"topic_id":"t","messages":[{"payload":{"a":X},"attributes":{"a":X}}]}]}"#,
    r#"{"acks":X,"publishes":[{"topic_id":X,"messages":[X]}]}"#,
    r#"{"publishes":[{"topic_id":"t","messages":[{"payload":{},"payload":X}]}]}"#,
    r#"{"publishes":[],"publishes":X}"#,
];

fn pick<'a>(random: &mut StdRng, pool: &[&'a str]) -> &'a str {
    pool.choose(random).unwrap()
}

fn json(random: &mut StdRng, depth: u32) -> String {
    let length = random.random_range(0..4);
    match random.random_range(0..if depth == 0 { 1 } else { 4 }) {
        0 => pick(random, SCALARS).to_owned(),
        1 => {
            let values: Vec<String> = (0..length).map(|_| json(random, depth - 1)).collect();
            format!("[{}]", values.join(","))
        }
        _ => {
            let fields: Vec<String> = (0..length)
                .map(|_| format!("\"{}\":{}", pick(random, FIELDS), json(random, depth - 1)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
    }
}

/// JSON, often almost right, now and then damaged.
fn body(random: &mut StdRng) -> Vec<u8> {
    let mut body = if random.random_bool(0.5) {
        let form = pick(random, FORMS).split('X').map(str::to_owned);
        form.reduce(|body, rest| body + pick(random, SCALARS) + &rest)
            .unwrap()
    } else {
        json(random, 3)
    }
    .into_bytes();
    match random.random_range(0..8) {
        0 => body.truncate(body.len() / 2),
        1 => {
            let at = random.random_range(0..body.len());
            body[at] = random.random();
        }
        2 => body.clear(),
        _ => {}
    }
    body
}

fn random_request(random: &mut StdRng) -> Vec<u8> {
    let method = pick(random, METHODS);
    let id = pick(random, IDS);
    let path = pick(random, PATHS).replace("ID", id);
    let query: Vec<String> = (0..random.random_range(0..3))
        .map(|_| format!("{}={}", pick(random, NAMES), pick(random, VALUES)))
        .collect();
    let headers = match pick(random, CONTENT_TYPES) {
        "" => String::new(),
        content_type => format!("Content-Type: {content_type}\r\n"),
    };
    let target = format!("{path}?{}", query.join("&"));
    request(method, &target, &headers, &body(random))
}

/// `FASTPUBSUB_TEST_SEED` repeats a run.
#[tokio::test]
async fn random_requests_never_fail_the_service_and_refusals_change_nothing() {
    let seed = std::env::var("FASTPUBSUB_TEST_SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse::<u64>().unwrap());
    let random = &mut StdRng::seed_from_u64(seed);
    let app = app().await;
    let pool = app.pool();

    for number in 0..400 {
        let bytes = random_request(random);
        let what = format!("seed {seed}, request {number}: {}", show(&bytes));
        let head = bytes.starts_with(b"HEAD");
        let before = contents(&pool).await;

        let answer = send(&app, bytes).await;

        assert!(
            answer.status < 500,
            "{what}\n{} {}",
            answer.status,
            answer.body
        );
        assert!(answer.header("x-request-id").is_some(), "{what}");
        if answer.status < 400 {
            continue;
        }
        assert_eq!(contents(&pool).await, before, "{what}\n{}", answer.body);
        if !head {
            let refusal: Value = serde_json::from_str(&answer.body)
                .unwrap_or_else(|error| panic!("{what}\n{error}: {:?}", answer.body));
            let is_oauth = refusal["error"].is_string() && what.contains("/oauth/token");
            assert!(
                is_oauth || !refusal["detail"].is_null(),
                "{what}\n{refusal}"
            );
        }
    }
}
