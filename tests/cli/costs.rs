//! What requests cost, seen from outside: the memory of the process, and how long others wait. The
//! bounds on time are far above what is true, as the machine may be busy and the build is slow.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Sandbox, Server};
use crate::support::database::TestDatabase;

const MIB: usize = 1024 * 1024;
/// Most memory that one request of at most 10 MiB may take.
const MOST_OF_ONE: usize = 64 * MIB;
/// Most bytes of answers on their way (FASTPUBSUB_API_MAX_ANSWER_BYTES_IN_FLIGHT).
const ANSWERS: usize = 32 * MIB;
/// The memory limit of deploy/kubernetes/deployment.yaml.
const MANIFEST: usize = 256 * MIB;
const OTHERS_WAIT: Duration = Duration::from_secs(3);

/// The memory of a server, and whether it answers others meanwhile.
struct Watched<'a> {
    server: Server<'a>,
    token: String,
    /// Its memory before it did anything.
    idle: usize,
}

impl Watched<'_> {
    fn status(&self, name: &str) -> usize {
        let text = fs::read_to_string(format!("/proc/{}/status", self.server.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        let kib = line.split_whitespace().nth(1).unwrap();
        kib.parse::<usize>().unwrap() * 1024
    }

    /// Forget the peak so far.
    fn reset_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.server.child.id()), "5").unwrap();
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.url.trim_start_matches("http://")).unwrap();
        let limit = Some(Duration::from_secs(60));
        stream.set_read_timeout(limit).unwrap();
        stream
    }

    /// A connection that takes no answer in before it is read.
    async fn connect_reluctantly(&self) -> TcpStream {
        let address = self.server.url.trim_start_matches("http://");
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(address.parse().unwrap()).await.unwrap();
        let stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        let limit = Some(Duration::from_secs(60));
        stream.set_read_timeout(limit).unwrap();
        stream
    }

    fn head(&self, method: &str, path: &str, headers: &str, length: usize) -> Vec<u8> {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             {headers}Content-Length: {length}\r\n\r\n",
            self.token
        )
        .into_bytes()
    }

    /// The status of an answer, which is read to its end.
    fn send(&self, request: &[u8]) -> u16 {
        let mut stream = self.connect();
        // it may be refused before it was sent
        let _refused = stream.write_all(request);
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        let start = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
        start
            .split(' ')
            .nth(1)
            .map_or(0, |status| status.parse().unwrap_or(0))
    }

    /// How much memory a request takes at its peak, beside a client that asks all the time.
    fn cost(&self, request: &[u8]) -> (u16, usize) {
        let before = self.status("VmRSS");
        self.reset_peak();
        let others = Others::ask(self.connect());
        let status = self.send(request);
        let longest = others.longest();
        assert!(longest < OTHERS_WAIT, "others waited {longest:?}");
        let peak = self.status("VmHWM");
        // what the allocator keeps for later must not add up either
        let most = self.idle + 2 * MOST_OF_ONE;
        assert!(peak < most, "{} MiB in all", peak / MIB);
        (status, peak.saturating_sub(before))
    }
}

/// Somebody who asks for /liveness every 20 ms.
struct Others {
    ended: Arc<AtomicBool>,
    asking: JoinHandle<Duration>,
}

impl Others {
    fn ask(mut stream: TcpStream) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let asking = spawn(move || {
            let mut longest = Duration::ZERO;
            let mut answer = [0; 2000];
            while !end.load(Ordering::Relaxed) {
                let asked = Instant::now();
                stream
                    .write_all(b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n")
                    .unwrap();
                assert!(stream.read(&mut answer).unwrap() > 0);
                longest = longest.max(asked.elapsed());
                std::thread::sleep(Duration::from_millis(20));
            }
            longest
        });
        Self { ended, asking }
    }

    fn longest(self) -> Duration {
        self.ended.store(true, Ordering::Relaxed);
        self.asking.join().unwrap()
    }
}

/// A server with authentication, topic `t`, subscription `s`, and a token for everything.
async fn watched(sandbox: &Sandbox) -> Watched<'_> {
    let server = sandbox.serve(&[]).await;
    let created = sandbox.run(&["create_client", "test"]).await.quietly();
    let value = |name: &str| {
        let line = created.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().to_owned()
    };
    let body = json!({"client_id": value("client_id="), "client_secret": value("client_secret=")});
    let token = server.post("/oauth/token", body).await.expect(201).json();
    let token = token["access_token"].as_str().unwrap().to_owned();
    for (path, body) in [
        ("/topics", json!({"id": "t"})),
        ("/subscriptions", json!({"id": "s", "topic_id": "t"})),
    ] {
        let request = server.request("POST", path).bearer_auth(&token).json(&body);
        crate::support::answer(request).await.expect(201);
    }
    let mut watched = Watched {
        server,
        token,
        idle: 0,
    };
    watched.idle = watched.status("VmRSS");
    println!("idle: {} MiB", watched.idle / MIB);
    watched
}

fn repeated(open: &str, item: &str, close: &str, bytes: usize) -> String {
    let most = bytes - open.len() - close.len();
    let items = item.repeat(most / item.len());
    format!("{open}{}{close}", items.trim_end_matches(','))
}

/// Bodies of so many bytes that are small as text only.
fn bombs(bytes: usize) -> Vec<String> {
    let keys: String = (0..bytes / 12).map(|n| format!("\"{n:07}\":0,")).collect();
    vec![
        repeated("[", "{\"\":0},", "]", bytes),
        repeated("{\"x\":[", "{\"\":0},", "]}", bytes),
        repeated("{\"messages\":[", "{\"\":0},", "]}", bytes),
        repeated(
            "{\"messages\":[{\"attributes\":[",
            "{\"\":0},",
            "]}]}",
            bytes,
        ),
        repeated("{\"acks\":[", "{\"\":0},", "],\"publishes\":[]}", bytes),
        repeated("{\"publishes\":[", "{\"a\":0},", "]}", bytes),
        repeated("{\"filter\":[", "{\"\":0},", "]}", bytes),
        repeated("[", "0,", "]", bytes),
        repeated("[", "{},", "]", bytes),
        repeated("{\"id\":\"", "x", "\"}", bytes),
        repeated("[{\"a\":", "[", "", bytes),
        format!("{{{}}}", keys.trim_end_matches(',')),
        format!("[{{{}}}]", keys.trim_end_matches(',')),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_takes_more_than_64_mib_or_holds_up_others() {
    // each path and each kind of body
    no_request_takes_too_much(|path, body| (path + body) % 6 == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-full"]
async fn no_body_on_any_path_takes_more_than_64_mib_or_holds_up_others() {
    no_request_takes_too_much(|_, _| true).await;
}

async fn no_request_takes_too_much(is_tried: fn(usize, usize) -> bool) {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url()).with_auth();
    let watched = watched(&sandbox).await;
    let mut seen = Vec::new();
    let mut check = |name: String, request: Vec<u8>| {
        let (status, cost) = watched.cost(&request);
        seen.push((cost / 1024, status, name.clone()));
        assert!(cost < MOST_OF_ONE, "{name}: {} MiB, {status}", cost / MIB);
        assert!(status == 0 || status < 500, "{name}: {status}");
    };

    for (at, (path, bytes)) in [
        ("/oauth/token", 16 * 1024),
        ("/topics", 64 * 1024),
        ("/subscriptions", 256 * 1024),
        ("/subscriptions/s/settle", 5 * MIB),
        ("/subscriptions/s/acks", 5 * MIB),
        ("/subscriptions/s/dlq/reprocess", 5 * MIB),
        ("/topics/t/messages", 10 * MIB),
        ("/topics/t/publish", 10 * MIB),
        ("/transactions", 10 * MIB),
    ]
    .into_iter()
    .enumerate()
    {
        for (number, body) in bombs(bytes).into_iter().enumerate() {
            if !is_tried(at, number) {
                continue;
            }
            let mut request = watched.head("POST", path, "", body.len());
            request.extend(body.as_bytes());
            check(format!("{path} {number}"), request);
        }
    }
    let bomb = repeated("[", "{\"\":0},", "]", 10 * MIB);
    let head = format!(
        "POST /oauth/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        bomb.len()
    );
    check(
        "no token".to_owned(),
        [head.as_bytes(), bomb.as_bytes()].concat(),
    );
    let large = format!("{{\"a\":\"{}\"}},", "x".repeat(MIB - 20));
    let messages = repeated("[", &large, "]", 10 * MIB);
    for (path, body) in [
        ("/topics/t/messages", messages.clone()),
        (
            "/topics/t/messages",
            format!("[{}{{}}]", "{},".repeat(99_999)),
        ),
        (
            "/topics/t/publish",
            format!(
                "{{\"messages\":{}}}",
                messages
                    .replace("{\"a\"", "{\"payload\":{\"a\"")
                    .replace("\"}", "\"}}")
            ),
        ),
    ] {
        let mut request = watched.head("POST", path, "", body.len());
        request.extend(body.as_bytes());
        check(format!("publish to {path}"), request);
    }
    let query = format!("/topics?{}", "a&".repeat(30_000));
    check("query".to_owned(), watched.head("GET", &query, "", 0));
    let header = format!("X: {}\r\n", "x".repeat(10 * MIB));
    check(
        "header".to_owned(),
        watched.head("GET", "/topics", &header, 0),
    );
    check(
        "headers".to_owned(),
        watched.head("GET", "/topics", &"A: b\r\n".repeat(500_000), 0),
    );
    let pull = r#"{"consumer_id": "c", "max_messages": 9}"#;
    let mut request = watched.head("POST", "/subscriptions/s/pull", "", pull.len());
    request.extend(pull.as_bytes());
    check("pull".to_owned(), request);

    seen.sort();
    seen.reverse();
    for (kib, status, name) in seen.iter().take(12) {
        println!("{kib:8} KiB {status} {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_the_manifest_is_enough_for_large_publishes_and_pulls_at_once() {
    memory_is_enough(2, 5, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-full"]
async fn the_memory_of_the_manifest_is_enough_for_many_large_publishes_and_pulls_at_once() {
    memory_is_enough(5, 10, 50).await;
}

async fn memory_is_enough(rounds: usize, publishes: usize, pulled: usize) {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url()).with_auth();
    let watched = watched(&sandbox).await;
    let large = format!("{{\"a\":\"{}\"}},", "x".repeat(MIB - 20));
    let body = repeated("[", &large, "]", 10 * MIB);
    let mut publish = watched.head("POST", "/topics/t/messages", "", body.len());
    publish.extend(body.as_bytes());
    let pull = r#"{"consumer_id": "c", "max_messages": 8}"#;
    let mut pulls = watched.head("POST", "/subscriptions/s/pull", "", pull.len());
    pulls.extend(pull.as_bytes());

    watched.reset_peak();
    // again, until each connection to Postgres has had a large one
    let statuses: Vec<u16> = (0..rounds)
        .flat_map(|_| at_once(&watched, &publish, publishes))
        .collect();
    println!("publishes: {} MiB", watched.status("VmHWM") / MIB);
    assert!(statuses.contains(&204), "{statuses:?}");
    assert!(
        statuses.iter().all(|status| [204, 503].contains(status)),
        "{statuses:?}"
    );
    let others = Others::ask(watched.connect());
    let statuses = at_once(&watched, &pulls, pulled);
    println!("pulls: {} MiB", watched.status("VmHWM") / MIB);
    assert!(statuses.contains(&200), "{statuses:?}");
    assert!(
        statuses.iter().all(|status| [200, 503].contains(status)),
        "{statuses:?}"
    );

    assert!(others.longest() < OTHERS_WAIT);
    let peak = watched.status("VmHWM");
    assert!(peak < MANIFEST, "{} MiB", peak / MIB);
}

fn at_once(watched: &Watched<'_>, request: &[u8], times: usize) -> Vec<u16> {
    std::thread::scope(|scope| {
        let sent: Vec<_> = (0..times)
            .map(|_| scope.spawn(|| watched.send(request)))
            .collect();
        sent.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_no_answer_lists_are_not_collected() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url()).with_auth();
    let watched = watched(&sandbox).await;
    let unknown: Vec<_> = (0..199).map(|n| format!("\"{n}\":0")).collect();
    let unknown = unknown.join(",");
    let message = format!("{{\"topic_id\":\"t\",\"messages\":[{{{unknown}}}]}}");
    for (publish, times) in [(format!("{{{unknown}}}"), 1001), (message, 1000)] {
        let body = format!("{{\"publishes\":[{}]}}", vec![publish; times].join(","));
        let mut request = watched.head("POST", "/transactions", "", body.len());
        request.extend(body.as_bytes());

        let (status, cost) = watched.cost(&request);

        println!("{} KiB, {status}", cost / 1024);
        assert_eq!(status, 422);
        assert!(cost < MOST_OF_ONE, "{} MiB", cost / MIB);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_nobody_reads_take_no_more_than_their_share() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url()).with_auth();
    let watched = watched(&sandbox).await;
    let mut connection = database.connect().await;
    for sql in [
        "insert into pubsub_data.dead_letters (topic_key, subscription_key, message_id, payload,
            published_at, attempts, reason)
         select s.topic_key, s.subscription_key, gen_random_uuid(),
            jsonb_build_object('a', repeat('x', 1000000)), clock_timestamp(), 1, 'rejected'
         from pubsub_data.subscriptions s, generate_series(1, 54)",
        "select pubsub.create_subscription('s' || n, 't',
            json_build_object('filter', json_build_object('a', (
                select json_agg(repeat('x', 240) || v) from generate_series(1, 1000) v))))
         from generate_series(1, 100) n",
    ] {
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }

    for path in ["/subscriptions/s/dlq?limit=100", "/subscriptions?limit=100"] {
        watched.reset_peak();
        let request = watched.head("GET", path, "", 0);
        let mut clients = Vec::new();
        for _ in 0..30 {
            let mut client = watched.connect_reluctantly().await;
            client.write_all(&request).unwrap();
            clients.push(client);
        }
        let statuses: Vec<u16> = clients.iter_mut().map(status).collect();
        let peak = watched.status("VmHWM");

        println!("{path}: {} MiB, {statuses:?}", peak / MIB);
        let count = |status| statuses.iter().filter(|given| **given == status).count();
        // as many as have 8 MiB of 32
        assert_eq!((count(200), count(503)), (4, 26), "{path}: {statuses:?}");
        assert!(
            peak < watched.idle + 3 * ANSWERS,
            "{path}: {} MiB",
            peak / MIB
        );
    }
}

/// The status of an answer, of which no more is read.
fn status(client: &mut TcpStream) -> u16 {
    let mut start = [0; 12];
    client.read_exact(&mut start).unwrap();
    std::str::from_utf8(&start[9..]).unwrap().parse().unwrap()
}

/// With 256 file descriptors, of which Postgres needs some.
#[tokio::test]
async fn the_probes_are_answered_beside_300_idle_connections() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    let server = sandbox.serve_after("ulimit -n 256").await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(&address).unwrap());
    }

    for path in ["/liveness", "/readiness"] {
        server.get(path).await.expect(200);
    }
    let refused = server.get("/topics").await.expect(503);
    assert_eq!(refused.header("retry-after"), Some("1"));

    drop(idle);
}
