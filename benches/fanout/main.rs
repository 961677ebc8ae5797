//! Broadcasts of the Pulsar Proxy door to many WebSockets: from the publish to the frame, and what the server needs
//! for it. Server, Postgres, publishers and subscribers share the machine.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a benchmark fails by panicking, and its numbers are small"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fastpubsub");
/// What is not counted: the first second.
const WARM_UP: u64 = 1_000_000;

/// One measurement.
struct Load {
    name: &'static str,
    sockets: usize,
    topics: usize,
    per_second: u64,
    seconds: u64,
}

const LOADS: [Load; 2] = [
    Load {
        name: "5,000 sockets, 50 topics, 1,000 messages a second",
        sockets: 5000,
        topics: 50,
        per_second: 1000,
        seconds: 15,
    },
    Load {
        name: "1,000 sockets, 1 topic, 100 messages a second",
        sockets: 1000,
        topics: 1,
        per_second: 100,
        seconds: 15,
    },
];

#[tokio::main]
async fn main() {
    println!(
        "{:<52} {:>9} {:>9} {:>9} {:>9} {:>10} {:>8}",
        "broadcast", "frames", "lost", "p50 ms", "p99 ms", "max ms", "RSS MiB"
    );
    for load in LOADS {
        measure(&load).await;
    }
}

fn micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}

/// A server over a Postgres of its own.
async fn start(directory: &std::path::Path) -> (Child, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let server = Command::new(PROGRAM)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .arg("server")
        .args(["--data-dir", directory.to_str().unwrap()])
        .args(["--log-level", "warning", "--api-host", "127.0.0.1"])
        .args(["--api-port", &address.port().to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            let head = "GET /pulsar/ready HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let _closed = stream.read_to_string(&mut answer).await;
            if answer.starts_with("HTTP/1.1 200") {
                return (server, address);
            }
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it does not start"
        );
        sleep(Duration::from_millis(100)).await;
    }
}

async fn measure(load: &Load) {
    let directory = std::env::temp_dir().join(format!("fastpubsub-fanout-{}", std::process::id()));
    let (mut server, address) = start(&directory).await;
    let (latencies, mut received) = mpsc::unbounded_channel();
    let begin = Arc::new(AtomicU64::new(u64::MAX));
    let mut subscribers = JoinSet::new();
    for number in 0..load.sockets {
        let stream = subscribe(address, number, number % load.topics).await;
        let (latencies, begin) = (latencies.clone(), Arc::clone(&begin));
        subscribers.spawn(async move { receive(stream, &latencies, &begin).await });
    }
    drop(latencies);
    begin.store(micros() + WARM_UP, Ordering::Relaxed);
    let counted = publish(load, address, begin.load(Ordering::Relaxed)).await;
    sleep(Duration::from_secs(2)).await;
    let rss = resident(server.id().unwrap());
    subscribers.shutdown().await;
    let mut all = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).unwrap();
    while let Some(latency) = received.recv().await {
        all.saturating_record(latency);
    }
    let expected = counted * (load.sockets / load.topics) as u64;
    let millis = |quantile| all.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "{:<52} {:>9} {:>9} {:>9.1} {:>9.1} {:>10.1} {:>8}",
        load.name,
        all.len(),
        expected - all.len(),
        millis(0.5),
        millis(0.99),
        millis(1.0),
        rss
    );
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.id().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    server.wait().await.unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
}

/// MiB that a process has in memory.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: u64 = line
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    kilobytes / 1024
}

/// A socket that is subscribed to a topic.
async fn subscribe(address: SocketAddr, number: usize, topic: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "GET /pulsar/ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let text = json!({
        "type": "subscribe", "topics": [format!("t{topic}")], "client_id": format!("c{number}"),
    });
    // a frame whose mask is nothing
    let text = text.to_string();
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend(text.as_bytes());
    stream.write_all(&frame).await.unwrap();
    let mut answer = Vec::new();
    let ends = |answer: &[u8]| answer.windows(2).any(|two| two == b"\"}");
    while !ends(&answer) {
        let mut part = [0; 512];
        let length = stream.read(&mut part).await.unwrap();
        assert!(length > 0, "it is closed");
        answer.extend(&part[..length]);
    }
    assert!(String::from_utf8_lossy(&answer).contains("subscribed"));
    stream
}

/// Take frames, and tell how long each took that was sent after `begin`.
async fn receive(mut stream: TcpStream, latencies: &mpsc::UnboundedSender<u64>, begin: &AtomicU64) {
    let mut waiting: Vec<u8> = Vec::with_capacity(1024);
    let mut part = [0; 1024];
    loop {
        let length = stream.read(&mut part).await.unwrap_or_default();
        if length == 0 {
            return;
        }
        waiting.extend(&part[..length]);
        let now = micros();
        while let Some((frame, length)) = frame(&waiting) {
            if let Some(at) = memchr::memmem::find(frame, b"\"t\": ") {
                let digits = frame[at + 5..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit());
                let sent = digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
                if sent >= begin.load(Ordering::Relaxed) {
                    let _ended = latencies.send(now.saturating_sub(sent).max(1));
                }
            }
            waiting.drain(..length);
        }
    }
}

/// The first whole frame, and how many bytes it has with its head.
fn frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (start, length) = match *bytes.get(1)? {
        126 => (
            4,
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        ),
        short => (2, usize::from(short)),
    };
    Some((bytes.get(start..start + length)?, start + length))
}

/// Send messages at a rate, whatever comes of them; how many were sent after `begin`.
async fn publish(load: &Load, address: SocketAddr, begin: u64) -> u64 {
    const PUBLISHERS: u64 = 20;
    let mut publishers = JoinSet::new();
    for number in 0..PUBLISHERS {
        let messages = (load.seconds * load.per_second) / PUBLISHERS;
        let pause = Duration::from_micros(1_000_000 * PUBLISHERS / load.per_second);
        let topics = load.topics as u64;
        publishers.spawn(async move {
            sleep(pause * u32::try_from(number).unwrap() / u32::try_from(PUBLISHERS).unwrap()).await;
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut ticks = interval(pause);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut counted = 0;
            for n in 0..messages {
                ticks.tick().await;
                let topic = (n * PUBLISHERS + number) % topics;
                let sent = micros();
                let body = format!(
                    r#"{{"topic":"t{topic}","payload":{{"t": {sent}, "rest": "{}"}}}}"#,
                    "x".repeat(200)
                );
                let request = format!(
                    "POST /pulsar/api/v1/messages HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n\
                     Content-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = [0; 2048];
                let length = stream.read(&mut answer).await.unwrap();
                assert!(answer[..length].starts_with(b"HTTP/1.1 201"), "refused");
                counted += u64::from(sent >= begin);
            }
            counted
        });
    }
    let mut all = 0;
    while let Some(counted) = publishers.join_next().await {
        all += counted.unwrap();
    }
    all
}
