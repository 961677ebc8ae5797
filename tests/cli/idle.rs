//! What servers that have nothing to do cost the database. Statements are counted on the wire, where
//! none is late, lost or somebody else's.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use uuid::Uuid;

use super::Sandbox;
use crate::support::database::TestDatabase;

/// Most statements a second that servers without work may send.
const ALLOWED: f64 = 2.0;
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
        let folder = std::env::temp_dir().join(format!("idle-{}", Uuid::now_v7().simple()));
        std::fs::create_dir(&folder).unwrap();
        let options = database.options();
        let socket = format!(".s.PGSQL.{}", options.get_port());
        let postgres = options.get_socket().unwrap().join(&socket);
        let listener = UnixListener::bind(folder.join(socket)).unwrap();
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

    // what the leader does when it starts it does again each minute
    counter.quiet().await;
    let at_start = counter.seen();
    tokio::time::sleep(WINDOW).await;
    let in_window = counter.seen() - at_start;
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
