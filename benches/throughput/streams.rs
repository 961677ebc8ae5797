//! Clients of streams, as bytes on a socket: they share the processors with what they measure.

use std::net::SocketAddr;
use std::time::Instant;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;

use crate::message::{receipts, times};
use crate::open_loop::Arrival;

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// Of a frame that is masked with zeros.
const MASK: [u8; 4] = [0; 4];

/// A stream that has begun.
pub(crate) struct Stream {
    socket: TcpStream,
    /// What came and was not looked at.
    bytes: Vec<u8>,
}

impl Stream {
    /// Server-Sent Events of a subscription.
    pub(crate) async fn events(address: SocketAddr, subscription: &str, query: &str) -> Self {
        let path = format!("/subscriptions/{subscription}/stream{query}");
        Self::open(address, &path, "").await
    }

    /// A WebSocket of a subscription.
    pub(crate) async fn socket(address: SocketAddr, subscription: &str) -> Self {
        let path = format!("/subscriptions/{subscription}/ws");
        Self::open(address, &path, UPGRADE).await
    }

    async fn open(address: SocketAddr, path: &str, headers: &str) -> Self {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let end = loop {
            assert!(socket.read_buf(&mut bytes).await.unwrap() > 0);
            if let Some(end) = memmem::find(&bytes, b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]);
        assert!(["101", "200"].contains(&&head[9..12]), "{path}: {head}");
        bytes.drain(..end);
        Self { socket, bytes }
    }

    async fn more(&mut self) -> Instant {
        let read = self.socket.read_buf(&mut self.bytes).await.unwrap();
        assert!(read > 0, "the stream ended");
        Instant::now()
    }

    /// Tell of events, which the server acks.
    pub(crate) async fn hear_events(mut self, arrivals: UnboundedSender<Arrival>) {
        loop {
            let now = self.more().await;
            if let Some(end) = memmem::rfind(&self.bytes, b"\n\n") {
                for sent in times(&self.bytes[..end]) {
                    let _over = arrivals.send((sent, now));
                }
                self.bytes.drain(..end);
            }
        }
    }

    /// Tell of messages, and ack each with a frame.
    pub(crate) async fn hear_frames(mut self, arrivals: UnboundedSender<Arrival>) {
        let mut answer = Vec::new();
        loop {
            let now = self.more().await;
            answer.clear();
            while let Some((head, end)) = frame(&self.bytes) {
                let content = &self.bytes[head..end];
                match self.bytes[0] & 15 {
                    9 => write_frame(&mut answer, 10, content),
                    _ => {
                        for sent in times(content) {
                            let _over = arrivals.send((sent, now));
                        }
                        if memmem::find(content, br#""type":"message""#).is_some() {
                            let receipt = receipts(content).next().unwrap();
                            let receipt = std::str::from_utf8(receipt).unwrap();
                            let ack = format!(r#"{{"type":"ack","receipt":"{receipt}"}}"#);
                            write_frame(&mut answer, 1, ack.as_bytes());
                        }
                    }
                }
                self.bytes.drain(..end);
            }
            self.socket.write_all(&answer).await.unwrap();
        }
    }
}

/// Where the content of the first frame of a server begins and ends, once all of it is there.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let (head, length) = match bytes.get(1)? {
        126 => (
            4,
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())),
        ),
        127 => panic!("a frame is too long"),
        length => (2, usize::from(*length)),
    };
    let end = head + length;
    (bytes.len() >= end).then_some((head, end))
}

fn write_frame(to: &mut Vec<u8>, kind: u8, content: &[u8]) {
    to.push(128 | kind);
    match u8::try_from(content.len()) {
        Ok(length @ ..=125) => to.push(128 | length),
        _ => {
            to.push(128 | 126);
            to.extend_from_slice(&u16::try_from(content.len()).unwrap().to_be_bytes());
        }
    }
    to.extend_from_slice(&MASK);
    to.extend_from_slice(content);
}
