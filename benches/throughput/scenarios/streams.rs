//! Streams: how long after a publish its event is there, and what streams cost that nothing comes on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::Bench;
use crate::fill;
use crate::http::Client;
use crate::meter::resident_mib;
use crate::open_loop::{histogram, millis};
use crate::report::{Row, Target};
use crate::server::Server;

/// Messages a second.
const RATE: u32 = 200;
/// Streams of each kind on which nothing comes.
const IDLE: usize = 1000;
const NUMBER: &[u8] = br#""payload":{"n": "#;

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let database = bench.cluster.database().await;
    fill::create(&database, "main").await;
    fill::create(&database, "others").await;
    let server = Server::start(bench, &database).await;
    let latencies = events(server.address, bench.flags.round()).await;
    let median = millis(&latencies, 0.5);
    let mut rows = vec![Row {
        target: Some(Target::at_most(median, 3.0, "ms")),
        note: format!(
            "median; 99 %: {:.1} ms, {} messages, one stream",
            millis(&latencies, 0.99),
            latencies.len()
        ),
        ..Row::new(
            format!("Server-Sent Events, from publish to event at {RATE}/s"),
            median,
            "ms",
        )
    }];
    for (kind, path, headers) in [
        ("Server-Sent Events", "stream", ""),
        (
            "WebSockets",
            "ws",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
    ] {
        let before = resident_mib(server.pid);
        let mut streams = Vec::new();
        for _ in 0..IDLE {
            let head =
                format!("GET /subscriptions/others/{path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
            streams.push(open(server.address, &head).await);
        }
        // past a comment or a ping
        tokio::time::sleep(Duration::from_secs(17)).await;
        let kib = (resident_mib(server.pid) - before) * 1024.0 / IDLE as f64;
        rows.push(Row {
            target: Some(Target::at_most(kib, 50.0, "KiB")),
            note: format!("{IDLE} of them, of one subscription"),
            ..Row::new(format!("memory of a silent stream, {kind}"), kib, "KiB")
        });
    }
    server.stop().await;
    bench.cluster.drop(database).await;
    rows
}

/// Open a stream; it has begun when its head is there.
async fn open(address: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while memmem::find(&answer, b"\r\n\r\n").is_none() {
        let read = stream.read_buf(&mut answer).await.unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
    }
    let status = String::from_utf8_lossy(&answer[9..12]).into_owned();
    assert!(["101", "200"].contains(&&*status), "{status}");
    stream
}

/// Microseconds from each publish to its event.
async fn events(address: SocketAddr, length: Duration) -> Histogram<u64> {
    let head = "GET /subscriptions/main/stream?auto_ack=true HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut stream = open(address, head).await;
    let sent: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let total = (length.as_secs_f64() * f64::from(RATE)) as usize;
    let of_publisher = Arc::clone(&sent);
    let publisher = tokio::spawn(async move {
        let mut client = Client::connect(address).await;
        let mut pace = tokio::time::interval(Duration::from_secs(1) / RATE);
        for number in 0..total {
            pace.tick().await;
            of_publisher.lock().unwrap().push(Instant::now());
            let body = format!("[{{\"n\": {number}}}]");
            client.post("/topics/main/messages", body.as_bytes()).await;
        }
    });
    let mut latencies = histogram();
    let mut text = Vec::new();
    while latencies.len() < total as u64 {
        let read = stream.read_buf(&mut text).await.unwrap();
        let now = Instant::now();
        assert!(read > 0, "the stream ended");
        let mut end = 0;
        for at in memmem::find_iter(&text, NUMBER) {
            let digits = text[at + NUMBER.len()..].split(|byte| *byte == b'}');
            let digits: Vec<&[u8]> = digits.take(2).collect();
            // the rest of it comes with the next bytes
            let [digits, _] = digits[..] else { break };
            let number: usize = std::str::from_utf8(digits).unwrap().parse().unwrap();
            let micros = (now - sent.lock().unwrap()[number]).as_micros();
            latencies.saturating_record(u64::try_from(micros).unwrap());
            end = at + NUMBER.len();
        }
        text.drain(..end);
    }
    publisher.await.unwrap();
    latencies
}
