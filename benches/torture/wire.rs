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
const TIMEOUT: Duration = Duration::from_secs(20);

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

/// The answer, if the whole of it comes.
async fn receive(stream: &mut TcpStream) -> Option<(Outcome, Vec<u8>)> {
    let mut buffer = Vec::new();
    loop {
        if stream.read_buf(&mut buffer).await.ok()? == 0 {
            return None;
        }
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end]).unwrap().to_owned();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        let chunked = header("transfer-encoding").is_some_and(|(_, coding)| coding == "chunked");
        let length = header("content-length").map(|(_, length)| length.parse().unwrap());
        assert!(
            status == 204 || chunked || length.is_some(),
            "an answer without its length: {head}"
        );
        let body = loop {
            let sent = &buffer[end + 4..];
            let length = length.unwrap_or(0);
            if chunked {
                if let Some(body) = chunked::joined(sent) {
                    break body;
                }
            } else if sent.len() >= length {
                break sent.to_vec();
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let outcome = match status {
            200..=299 => Outcome::Done,
            500.. => Outcome::Failed {
                status,
                retry_after: header("retry-after").is_some(),
            },
            _ => Outcome::Refused(status),
        };
        return Some((outcome, body));
    }
}
