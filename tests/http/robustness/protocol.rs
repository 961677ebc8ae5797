//! What is hardly HTTP, or not at all.

use super::{app, assert_unharmed, contents, exchange, parse, show};

/// The server refuses or hangs up; it neither fails nor stops.
#[tokio::test]
async fn garbage_is_refused_and_the_next_request_is_served() {
    let app = app().await;
    let before = contents(&app.pool()).await;
    let post = "POST /topics HTTP/1.1\r\nHost: x\r\n";
    let topic = "{\"id\":\"hostile\"}";

    let mut garbage: Vec<Vec<u8>> = [
        "", "\r\n", "\r\n\r\n\r\n", "\n", "GET", "GET /topics", "GET /topics HTTP/1.1", "rubbish\r\n\r\n",
        "GET /topics HTTP/9.9\r\n\r\n", "GET  /topics HTTP/1.1\r\n\r\n", "GET /a b HTTP/1.1\r\n\r\n",
        "GET /topics HTTP/1.1\r\nno colon\r\n\r\n", "GET /topics HTTP/1.1\r\n: x\r\n\r\n",
        "GET /topics HTTP/1.1\r\nA: \u{0}\r\n\r\n", "GET /topics HTTP/1.1\r\n A: folded\r\n\r\n",
        "GET \u{1} HTTP/1.1\r\n\r\n", "GET topics HTTP/1.1\r\n\r\n", "GET :// HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /topics HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n\r\n",
        "GET /topics HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
        &format!("{post}Content-Length: -1\r\n\r\n{topic}"),
        &format!("{post}Content-Length: x\r\n\r\n{topic}"),
        &format!("{post}Content-Length: 99999999999999999999\r\n\r\n{topic}"),
        &format!("{post}Content-Length: 16\r\nContent-Length: 15\r\n\r\n{topic}"),
        &format!("{post}Transfer-Encoding: x\r\n\r\n{topic}"),
        &format!("{post}Transfer-Encoding: chunked\r\n\r\n{topic}"),
        &format!("{post}Transfer-Encoding: chunked\r\n\r\n-1\r\n{topic}\r\n0\r\n\r\n"),
        &format!("GET /topics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000)),
        &format!("GET /topics HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(1_000_000)),
        &format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)),
        &format!("{} /topics HTTP/1.1\r\n\r\n", "X".repeat(1_000_000)),
        &"A".repeat(1_000_000),
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    garbage.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    garbage.push(vec![0; 10_000]);
    garbage.push(vec![0xff; 10_000]);
    garbage.push(b"GET /\xff\xfe HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec());
    garbage.push((0..=255).cycle().take(65_536).collect());

    for bytes in garbage {
        let shown = show(&bytes);
        let answer = exchange(&app, bytes, true).await;
        if let Some(answer) = parse(&answer) {
            assert!(
                answer.status < 500,
                "{shown}: {} {}",
                answer.status,
                answer.body
            );
        }
        app.get("/topics/t").await.expect(200);
    }

    app.get("/topics/hostile").await.expect(404);
    assert_unharmed(&app, &before).await;
}

#[tokio::test]
async fn requests_that_stop_half_way_do_not_stop_the_others() {
    let app = app().await;
    let before = contents(&app.pool()).await;
    let whole =
        b"POST /topics/t/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n[{\"a\":1}]";
    let address = app.url.trim_start_matches("http://");

    let mut open = Vec::new();
    for length in (1..whole.len()).step_by(3) {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(&whole[..length]).unwrap();
        open.push(stream);
    }

    assert_unharmed(&app, &before).await;
    drop(open);
    assert_unharmed(&app, &before).await;
}

#[tokio::test]
async fn http_1_0_is_answered() {
    let app = app().await;

    let answer = exchange(&app, b"GET /topics/t HTTP/1.0\r\n\r\n".to_vec(), false).await;

    let answer = parse(&answer).unwrap().expect(200);
    assert_eq!(answer.json()["id"], "t");
    assert!(answer.header("x-request-id").is_some());
}

#[tokio::test]
async fn requests_in_one_packet_are_answered_in_order() {
    let app = app().await;
    let bytes = "POST /topics HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{\"id\":\"p\"}\
        GET /topics/p HTTP/1.1\r\nHost: x\r\n\r\n\
        GET /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    let answers = exchange(&app, bytes.as_bytes().to_vec(), false).await;

    let answers = String::from_utf8(answers).unwrap();
    let statuses: Vec<&str> = answers
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| &answer[..3])
        .collect();
    assert_eq!(statuses, ["201", "200", "404"], "{answers}");
}
