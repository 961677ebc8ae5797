//! Receivers of pushes, each with an address of its own, that take their time for an answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// They listen until this is dropped.
pub(crate) struct Receivers {
    pub(crate) addresses: Vec<SocketAddr>,
    _listening: JoinSet<()>,
}

impl Receivers {
    /// So many; `take` is told of each push when it is answered.
    pub(crate) async fn start<T>(number: usize, answer_after: Duration, take: T) -> Self
    where
        T: Fn(&[u8]) + Clone + Send + Sync + 'static,
    {
        let (mut addresses, mut listening) = (Vec::new(), JoinSet::new());
        for _ in 0..number {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            let take = take.clone();
            listening.spawn(async move {
                let mut connections = JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    connections.spawn(receive(stream, answer_after, take.clone()));
                }
            });
        }
        Self {
            addresses,
            _listening: listening,
        }
    }
}

/// One connection, until the server ends it.
async fn receive(mut stream: TcpStream, answer_after: Duration, take: impl Fn(&[u8])) {
    stream.set_nodelay(true).unwrap();
    let mut request = Vec::new();
    loop {
        let whole = loop {
            if let Some(whole) = length(&request)
                && request.len() >= whole
            {
                break whole;
            }
            // a server that stops may break it off
            if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
                return;
            }
        };
        if !answer_after.is_zero() {
            tokio::time::sleep(answer_after).await;
        }
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
        take(&request[..whole]);
        request.drain(..whole);
    }
}

/// How long a request is, once its head is there.
fn length(request: &[u8]) -> Option<usize> {
    const LENGTH: &[u8] = b"content-length: ";
    let end = memmem::find(request, b"\r\n\r\n")?;
    let at = memmem::find(&request[..end], LENGTH).unwrap() + LENGTH.len();
    let digits = request[at..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let body = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    Some(end + 4 + body)
}
