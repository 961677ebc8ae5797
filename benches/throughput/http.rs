//! An HTTP/1.1 client that costs little: it shares the processors with what it measures.

use std::net::SocketAddr;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::chunked;

const BUFFER_BYTES: usize = 64 * 1024;

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    /// The line of the token, if there is one.
    authorization: String,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// Of an answer that came in chunks.
    joined: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            authorization: String::new(),
            request: Vec::new(),
            answer: Vec::with_capacity(BUFFER_BYTES),
            joined: Vec::new(),
        }
    }

    pub(crate) fn authorize(&mut self, token: Option<&str>) {
        self.authorization = token.map_or_else(String::new, |token| {
            format!("authorization: Bearer {token}\r\n")
        });
    }

    pub(crate) async fn get(&mut self, path: &str) -> &[u8] {
        let mut request = std::mem::take(&mut self.request);
        self.write_request(&mut request, "GET", path, b"");
        self.request = request;
        self.exchange().await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &[u8]) -> &[u8] {
        let mut request = std::mem::take(&mut self.request);
        self.write_request(&mut request, "POST", path, body);
        self.request = request;
        self.exchange().await
    }

    /// Send the request of before once more.
    pub(crate) async fn repeat(&mut self) -> &[u8] {
        self.exchange().await
    }

    /// The bytes of a request, which may be changed and given to `send`.
    pub(crate) fn prepare(&self, path: &str, body: &[u8]) -> Vec<u8> {
        let mut request = Vec::new();
        self.write_request(&mut request, "POST", path, body);
        request
    }

    pub(crate) async fn send(&mut self, request: &[u8]) -> &[u8] {
        self.request.clear();
        self.request.extend_from_slice(request);
        self.exchange().await
    }

    fn write_request(&self, request: &mut Vec<u8>, method: &str, path: &str, body: &[u8]) {
        request.clear();
        let authorization = &self.authorization;
        let length = body.len();
        request.extend_from_slice(
            format!(
                "{method} {path} HTTP/1.1\r\nhost: bench\r\n{authorization}\
                 content-length: {length}\r\n\r\n"
            )
            .as_bytes(),
        );
        request.extend_from_slice(body);
    }

    /// The body of the answer, which must be a success.
    async fn exchange(&mut self) -> &[u8] {
        self.stream.write_all(&self.request).await.unwrap();
        self.answer.clear();
        let mut body = None;
        loop {
            let read = self.stream.read_buf(&mut self.answer).await.unwrap();
            assert!(read > 0, "the server closed the connection");
            if body.is_none() {
                body = body_range(&self.answer);
            }
            let Some((from, length)) = body else {
                continue;
            };
            let sent = &self.answer[from..];
            let whole = match length {
                Some(length) => sent.len() >= length,
                // the end of the last chunk; joined as soon as it may be there
                None => match sent.ends_with(b"0\r\n\r\n").then(|| chunked::joined(sent)) {
                    Some(Some(joined)) => {
                        self.joined = joined;
                        true
                    }
                    _ => false,
                },
            };
            if whole {
                assert!(
                    self.answer.starts_with(b"HTTP/1.1 2"),
                    "{}",
                    String::from_utf8_lossy(&self.answer)
                );
                return match length {
                    Some(length) => &self.answer[from..from + length],
                    None => &self.joined,
                };
            }
        }
    }
}

/// Where the body starts and how long it is, if that is told, once the head is there.
fn body_range(answer: &[u8]) -> Option<(usize, Option<usize>)> {
    const LENGTH: &[u8] = b"content-length: ";
    const CHUNKED: &[u8] = b"transfer-encoding: chunked";
    let end = memmem::find(answer, b"\r\n\r\n")?;
    if memmem::find(&answer[..end], CHUNKED).is_some() {
        return Some((end + 4, None));
    }
    let length = memmem::find(&answer[..end], LENGTH).map_or(0, |at| {
        let digits = answer[at + LENGTH.len()..].iter();
        digits
            .take_while(|byte| byte.is_ascii_digit())
            .fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
    });
    Some((end + 4, Some(length)))
}
