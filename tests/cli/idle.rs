//! What servers that have nothing to do cost the database. Statements are counted on the wire, where
//! none is late, lost or somebody else's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Sandbox;
use crate::support::answer;
use crate::support::database::TestDatabase;

/// Most statements a second that servers without work may send.
const ALLOWED: f64 = 2.0;
/// Most statements a second of a server with consumers that wait and nothing to give them.
const ALLOWED_WAITING: f64 = 3.0;
/// Longer than two ticks of the maintenance.
const WINDOW: Duration = Duration::from_secs(11);

/// What a client sends first to ask whether the server speaks TLS.
const TLS_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// A socket in front of Postgres that counts the statements that pass through it.
struct Counter {
    folder: PathBuf,
    statements: Arc<AtomicUsize>,
}

impl Counter {
    fn before(database: &TestDatabase) -> Self {
        let options = database.options();
        let folder = options.get_socket().unwrap();
        Self::of(&folder.join(format!(".s.PGSQL.{}", options.get_port())))
    }

    /// In front of a socket of Postgres.
    fn of(postgres: &Path) -> Self {
        let postgres = postgres.to_owned();
        let folder = std::env::temp_dir().join(format!("idle-{}", Uuid::now_v7().simple()));
        std::fs::create_dir(&folder).unwrap();
        let socket = folder.join(postgres.file_name().unwrap());
        let listener = UnixListener::bind(socket).unwrap();
        let statements = Arc::new(AtomicUsize::new(0));
        let count = statements.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = UnixStream::connect(&postgres).await.unwrap();
                let (client_reads, mut client_writes) = client.into_split();
                let (mut server_reads, server_writes) = server.into_split();
                tokio::spawn(forward(client_reads, server_writes, count.clone()));
                tokio::spawn(async move { copy(&mut server_reads, &mut client_writes).await });
            }
        });
        Self { folder, statements }
    }

    /// A URL of the database that leads through here.
    fn url(&self, database: &TestDatabase) -> String {
        let url = database.url();
        let (before, _) = url.rsplit_once("host=").unwrap();
        format!("{before}host={}", self.folder.display())
    }

    fn seen(&self) -> usize {
        self.statements.load(Ordering::SeqCst)
    }

    /// Wait until nothing has passed for a second, or for ten: then they are not quiet at all.
    async fn quiet(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut seen = usize::MAX;
        while self.seen() != seen && Instant::now() < deadline {
            seen = self.seen();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// Pass a client's messages on: a first one without a type, then a byte of type and a length each.
async fn forward(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    statements: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let mut has_type = false;
    loop {
        if has_type {
            let kind = client.read_u8().await?;
            // a simple query, or the execution of a prepared one
            if matches!(kind, b'Q' | b'E') {
                statements.fetch_add(1, Ordering::SeqCst);
            }
            server.write_u8(kind).await?;
        }
        let length = client.read_u32().await?;
        let mut rest = vec![0; usize::try_from(length).unwrap() - 4];
        client.read_exact(&mut rest).await?;
        // asking for TLS is followed by another message without a type
        has_type |= rest != TLS_REQUEST;
        server.write_u32(length).await?;
        server.write_all(&rest).await?;
    }
}

/// Statements a second of some servers on one database, over a minute without a request.
async fn statements_per_second(servers: usize) -> f64 {
    let database = TestDatabase::create().await;
    let counter = Counter::before(&database);
    let sandboxes: Vec<Sandbox> = (0..servers)
        .map(|_| Sandbox::over(&counter.url(&database)))
        .collect();
    let mut running = Vec::new();
    for sandbox in &sandboxes {
        running.push(sandbox.serve(&[]).await);
    }
    // looking at the schema and for a pooler is done once
    let to_start = counter.seen();

    // what the leader does when it starts it does again each minute
    counter.quiet().await;
    let at_start = counter.seen() - to_start;
    tokio::time::sleep(WINDOW).await;
    let in_window = counter.seen() - to_start - at_start;
    for server in running {
        server.stop().await;
    }

    assert!(in_window > 0, "the counter sees nothing");
    count(at_start) / 60.0 + count(in_window) / WINDOW.as_secs_f64()
}

fn count(statements: usize) -> f64 {
    f64::from(u32::try_from(statements).unwrap())
}

#[tokio::test]
async fn one_idle_server_or_two_send_at_most_two_statements_a_second() {
    let (one, two) = tokio::join!(statements_per_second(1), statements_per_second(2));

    assert!(one <= ALLOWED, "{one} statements a second");
    assert!(two <= ALLOWED, "{two} statements a second of two servers");
}

/// Consumers that ask again as soon as their wait is over, until they are told to end.
async fn wait_for_ever(
    client: reqwest::Client,
    url: String,
    answers: Arc<AtomicUsize>,
    ended: CancellationToken,
) {
    // short waits: who asks again costs nothing either
    let body = json!({"consumer_id": "c", "wait_seconds": 3});
    while !ended.is_cancelled() {
        let pull = client.post(format!("{url}/subscriptions/s/pull"));
        let pulled = answer(pull.json(&body)).await.expect(200).json();
        assert_eq!(pulled, json!({"messages": []}));
        answers.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_thousand_consumers_that_wait_cost_at_most_a_few_statements_a_second() {
    // a Postgres that nobody else uses: a commit of any of its databases is looked at
    let private = Sandbox::new();
    let first = private.serve(&[]).await;
    let counter = Counter::of(&private.data_dir.join(".s.PGSQL.5432"));
    let url = format!(
        "postgresql://postgres@localhost/fastpubsub?host={}",
        counter.folder.display()
    );
    let sandbox = Sandbox::over(&url);
    let server = sandbox.serve(&[]).await;
    let client = reqwest::Client::new();
    for (path, body) in [
        ("topics", json!({"id": "t"})),
        ("subscriptions", json!({"id": "s", "topic_id": "t"})),
    ] {
        let create = client.post(format!("{}/{path}", server.url)).json(&body);
        answer(create).await.expect(201);
    }
    let ended = CancellationToken::new();
    let answers = Arc::new(AtomicUsize::new(0));
    let consumers: Vec<_> = (0..1000)
        .map(|_| {
            wait_for_ever(
                client.clone(),
                server.url.clone(),
                answers.clone(),
                ended.clone(),
            )
        })
        .map(tokio::spawn)
        .collect();

    // a first claim may be many: they all come at once
    while answers.load(Ordering::SeqCst) < 1000 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let at_start = counter.seen();
    tokio::time::sleep(WINDOW).await;
    let per_second = count(counter.seen() - at_start) / WINDOW.as_secs_f64();
    ended.cancel();
    for consumer in consumers {
        consumer.await.unwrap();
    }
    server.stop().await;
    first.stop().await;

    assert!(per_second > 0.0, "the counter sees nothing");
    assert!(
        per_second <= ALLOWED_WAITING,
        "{per_second} statements a second"
    );
}
