//! Queries and credentials that make no sense.

use super::{UNKNOWN_CLIENT, app, assert_refused, assert_unharmed, contents, request, send};
use crate::support::TestApp;

#[tokio::test]
async fn hostile_pages_are_422() {
    let app = app().await;

    for query in [
        "offset=-1",
        "offset=9223372036854775808",
        "offset=-9223372036854775809",
        "offset=1e3",
        "offset=NaN",
        "offset=null",
        "offset=%00",
        "offset=1%00",
        "offset=",
        "offset",
        "offset=%ff",
        "offset=%zz",
        "offset=0x10",
        "offset=1;2",
        "offset=1,2",
        "offset=--1",
        "offset=+-1",
        "offset=%D9%A1",
        "offset=1_000",
        "limit=0",
        "limit=-0",
        "limit=-5",
        "limit=101",
        "limit=2147483648",
        "limit=99999999999999999999",
        "limit=true",
        "limit=1.5",
        "limit=[]",
        "limit=1&limit=x",
        "limit=1&offset=0&limit=0",
        "limit=%31%30%31",
        &format!("offset={}", "9".repeat(10_000)),
        &format!("offset=-{}", "9".repeat(10_000)),
        &format!("limit={}", "x".repeat(10_000)),
        "x=%00",
        "%00=%00",
        "%zz",
        "%",
        "=",
        "==",
        "?",
        "limit[]=1",
        "LIMIT=0",
        &"x=1&".repeat(5000),
    ] {
        for list in [
            "/topics",
            "/subscriptions",
            "/clients",
            "/subscriptions/s/dlq",
            "/subscriptions/s/parked",
        ] {
            let target = format!("{list}?{query}");
            let answer = send(&app, request("GET", &target, "", b"")).await;
            assert_refused(&answer, 422, &format!("{target:.100}"));
        }
    }
}

#[tokio::test]
async fn odd_queries_that_mean_something_are_answered() {
    let app = app().await;

    for query in [
        "limit=x&limit=1",
        "offset=9223372036854775807",
        "offset=9223372036854775807&limit=100",
        "limit=%31",
        "limit=+1",
        "limit=1.0",
        "&&&",
        "offset=0001",
        &"limit=1&".repeat(5000),
    ] {
        for list in [
            "/topics",
            "/subscriptions",
            "/clients",
            "/subscriptions/s/dlq",
            "/subscriptions/s/parked",
        ] {
            let target = format!("{list}?{query}");
            let answer = send(&app, request("GET", &target, "", b"")).await;
            assert_eq!(answer.status, 200, "{target:.100}: {}", answer.body);
            assert!(answer.json()["data"].is_array(), "{target:.100}");
        }
    }
}

#[tokio::test]
async fn hostile_consumers_lease_nothing() {
    let app = app().await;
    let before = contents(&app.pool()).await;

    for query in [
        "",
        "consumer_id=%00",
        "consumer_id=a%00b",
        "consumer_id=c&batch_size=0",
        "batch_size=1",
        "consumer_id=c&batch_size=101",
        "consumer_id=c&batch_size=-1",
        "consumer_id=c&batch_size=",
        "consumer_id=c&batch_size=%00",
        "consumer_id=c&batch_size=NaN",
        "Consumer_Id=c",
        "consumer_id=c&batch_size=99999999999999999999999",
        "consumer_id=c&batch_size=null",
        &format!("consumer_id={}", "x".repeat(1025)),
        &format!("consumer_id={}", "%F0%9F%98%80".repeat(1025)),
    ] {
        let target = format!("/subscriptions/s/messages?{query}");
        let answer = send(&app, request("GET", &target, "", b"")).await;
        assert_refused(&answer, 422, &format!("{target:.100}"));
    }

    assert_unharmed(&app, &before).await;
}

#[tokio::test]
async fn odd_consumers_are_taken() {
    let app = app().await;

    for consumer in [
        "consumer_id",
        "consumer_id=",
        "consumer_id=%ff",
        "consumer_id=%zz",
        "consumer_id=a&consumer_id=b",
        "consumer_id=%27%22%3B--",
        "consumer_id=%0d%0a",
        "consumer_id=%F0%9F%98%80",
        &format!("consumer_id={}", "%F0%9F%98%80".repeat(1024)),
    ] {
        let target = format!("/subscriptions/s/messages?batch_size=1&{consumer}");
        let answer = send(&app, request("GET", &target, "", b"")).await;
        assert_eq!(answer.status, 200, "{target:.100}: {}", answer.body);
    }
}

#[tokio::test]
async fn hostile_authorization_is_401() {
    let app = TestApp::start_with_auth("*").await;
    let uuid = UNKNOWN_CLIENT;
    let long = "a".repeat(15_000);

    for authorization in [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Bearer  ",
        "bearer x",
        "Bearer a.b.c",
        "Bearer ..",
        "Bearer \u{e9}",
        "Basic Og==",
        "Basic \u{ff}",
        "Digest x",
        "\u{ff}\u{fe}",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
        "Bearer eyJhbGciOiJIUzI1NiJ9.e30.AAAA",
        "Bearer null",
        "Bearer [object Object]",
        uuid,
        &format!("Bearer {long}"),
        &format!("Bearer {long}.{long}.{long}"),
        "Bearer a, Bearer b",
    ] {
        let headers = format!("Authorization: {authorization}\r\n");
        for target in [
            "/topics",
            "/topics/%00",
            "/subscriptions/s/messages",
            "/clients/x",
        ] {
            let answer = send(&app, request("GET", target, &headers, b"")).await;
            assert_refused(&answer, 401, &format!("{target} {headers:.100}"));
            assert!(
                answer.header("www-authenticate").is_some(),
                "{target} {headers:.100}"
            );
        }
    }
}

#[tokio::test]
async fn authorization_is_ignored_where_it_is_off() {
    let app = app().await;

    for authorization in ["", "Bearer rubbish", "Basic Og==", "\u{ff}\u{fe}"] {
        let headers = format!("Authorization: {authorization}\r\n");
        let answer = send(&app, request("GET", "/topics/t", &headers, b"")).await;
        assert_eq!(answer.status, 200, "{authorization}: {}", answer.body);
    }
}
