//! HTTP by hand: one kept-alive connection to one server at a time, which can be cut anywhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::chunked;
use super::clock::Clock;
use super::history::{Call, Outcome};
use super::servers::Servers;

/// Longer than a server is frozen, or waits for a connection to the database.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Where to go away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Never,
    InRequest,
    InResponse,
}

pub struct Answer {
    pub call: Call,
    pub body: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    server: usize,
    /// Of the server's process; a killed one leaves a dead socket.
    generation: u64,
}

pub struct Wire {
    pub client: Arc<str>,
    pub servers: Arc<Servers>,
    clock: Clock,
    connection: Option<Connection>,
}

impl Wire {
    pub fn new(client: &str, servers: &Arc<Servers>, clock: Clock) -> Self {
        Self {
            client: client.into(),
            servers: Arc::clone(servers),
            clock,
            connection: None,
        }
    }

    /// Call a server, over the connection there is if it leads there.
    pub async fn call(
        &mut self,
        server: usize,
        (method, path, body): (&str, &str, &str),
        cut: Cut,
    ) -> Answer {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: torture\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let sent = self.clock.now();
        let exchange = self.exchange(server, request.as_bytes(), cut);
        let (outcome, body) = match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(answered) => answered,
            Err(_) => (Outcome::TimedOut, Vec::new()),
        };
        let keeps = matches!(
            outcome,
            Outcome::Done | Outcome::Refused(_) | Outcome::Failed { .. }
        );
        if !keeps {
            self.connection = None;
        }
        let call = Call {
            client: Arc::clone(&self.client),
            server,
            sent,
            done: self.clock.now(),
            outcome,
        };
        Answer { call, body }
    }

    async fn exchange(&mut self, server: usize, request: &[u8], cut: Cut) -> (Outcome, Vec<u8>) {
        let generation = self.servers.generation(server);
        let fits = |connection: &Connection| {
            connection.server == server && connection.generation == generation
        };
        if !self.connection.as_ref().is_some_and(fits) {
            let Ok(stream) = TcpStream::connect(self.servers.address(server)).await else {
                return (Outcome::NoConnection, Vec::new());
            };
            stream.set_nodelay(true).unwrap();
            self.connection = Some(Connection {
                stream,
                server,
                generation,
            });
        }
        let stream = &mut self.connection.as_mut().unwrap().stream;
        let upto = match cut {
            Cut::InRequest => request.len() / 2,
            Cut::Never | Cut::InResponse => request.len(),
        };
        if stream.write_all(&request[..upto]).await.is_err() {
            return (Outcome::Broken, Vec::new());
        }
        match cut {
            Cut::InRequest => (Outcome::CutInRequest, Vec::new()),
            Cut::InResponse => {
                // a few bytes of it, or none at all
                let mut start = [0; 16];
                let waited = stream.read(&mut start);
                let _some = tokio::time::timeout(Duration::from_millis(3), waited).await;
                (Outcome::CutInResponse, Vec::new())
            }
            Cut::Never => match receive(stream).await {
                Some(answered) => answered,
                None => (Outcome::Broken, Vec::new()),
            },
        }
    }
}

/// The head of a request or an answer.
pub struct Head(String);

impl Head {
    /// Read one, if the whole of it comes; the buffer has what came after it.
    pub async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Self> {
        loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = std::str::from_utf8(&buffer[..end]).unwrap().to_owned();
                buffer.drain(..end + 4);
                return Some(Self(head));
            }
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    /// Of the body, if it says so.
    pub fn length(&self) -> Option<usize> {
        self.header("content-length")
            .map(|length| length.parse().unwrap())
    }

    fn status(&self) -> u16 {
        self.0.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn outcome(&self) -> Outcome {
        match outcome_of(self.status()) {
            Outcome::Failed { status, .. } => Outcome::Failed {
                status,
                retry_after: self.header("retry-after").is_some(),
            },
            outcome => outcome,
        }
    }
}

/// Of an answer that asks for no patience.
pub fn outcome_of(status: u16) -> Outcome {
    match status {
        101 | 200..=299 => Outcome::Done,
        500.. => Outcome::Failed {
            status,
            retry_after: false,
        },
        _ => Outcome::Refused(status),
    }
}

/// The answer, if the whole of it comes.
async fn receive(stream: &mut TcpStream) -> Option<(Outcome, Vec<u8>)> {
    let mut buffer = Vec::new();
    let head = Head::read(stream, &mut buffer).await?;
    let chunked = head.header("transfer-encoding") == Some("chunked");
    let length = head.length();
    assert!(
        head.status() == 204 || chunked || length.is_some(),
        "an answer without its length: {}",
        head.0
    );
    let body = loop {
        if chunked {
            if let Some(body) = chunked::joined(&buffer) {
                break body;
            }
        } else if buffer.len() >= length.unwrap_or(0) {
            break buffer;
        }
        if stream.read_buf(&mut buffer).await.ok()? == 0 {
            return None;
        }
    };
    Some((head.outcome(), body))
}
