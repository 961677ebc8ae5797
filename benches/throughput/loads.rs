//! What one client of a crowd does over HTTP, over and over.

use std::net::SocketAddr;
use std::time::Duration;

use crate::crowd::Progress;
use crate::http::Client;
use crate::message::{publish_body, receipts, write_acks};

pub(crate) async fn publish(address: SocketAddr, topic: &str, batch: usize, progress: Progress) {
    let mut client = Client::connect(address).await;
    let body = publish_body(batch);
    client.post(&publish_path(topic), &body).await;
    progress.add(batch);
    while !progress.stopped() {
        client.repeat().await;
        progress.add(batch);
    }
}

/// Consumes and acks. An empty answer is a backlog that ran out, unless it is a drain.
pub(crate) async fn consume(
    address: SocketAddr,
    subscription: &str,
    batch: usize,
    progress: Progress,
) {
    let mut consumer = Consumer::new(Client::connect(address).await, subscription, batch);
    while !progress.stopped() {
        let messages = consumer.consume_and_ack().await;
        progress.add_or_pause(messages).await;
    }
}

/// Pulls and, in the same request, acks what the one before brought, until there is nothing.
pub(crate) async fn settle_and_pull(
    address: SocketAddr,
    subscription: &str,
    batch: usize,
    progress: Progress,
) {
    let mut client = Client::connect(address).await;
    let path = format!("/subscriptions/{subscription}/pull");
    let (mut acks, mut body, mut held) = (Vec::new(), Vec::new(), 0);
    while !progress.stopped() {
        body.clear();
        body.extend_from_slice(
            format!(r#"{{"consumer_id":"c","max_messages":{batch},"settle":{{"acks":"#).as_bytes(),
        );
        body.extend_from_slice(if held == 0 { b"[]" } else { &acks });
        body.extend_from_slice(b"}}");
        let answer = client.post(&path, &body).await;
        let messages = memchr::memmem::find(answer, br#""messages":["#).unwrap();
        progress.add(held);
        held = write_acks(receipts(&answer[messages..]), &mut acks);
        if held == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Publishes one, consumes and acks what there is: the life of a message over one connection.
pub(crate) async fn cycle(
    address: SocketAddr,
    name: &str,
    token: Option<String>,
    progress: Progress,
) {
    let mut client = Client::connect(address).await;
    client.authorize(token.as_deref());
    let publish = client.prepare(&publish_path(name), &publish_body(1));
    let mut consumer = Consumer::new(client, name, 10);
    while !progress.stopped() {
        consumer.client.send(&publish).await;
        progress.add(consumer.consume_and_ack().await);
    }
}

pub(crate) fn publish_path(topic: &str) -> String {
    format!("/topics/{topic}/messages")
}

pub(crate) fn consume_path(subscription: &str, batch: usize) -> String {
    format!("/subscriptions/{subscription}/messages?consumer_id=c&batch_size={batch}")
}

pub(crate) fn ack_path(subscription: &str) -> String {
    format!("/subscriptions/{subscription}/acks")
}

/// A connection that consumes and acks.
pub(crate) struct Consumer {
    client: Client,
    consume_path: String,
    ack_path: String,
    acks: Vec<u8>,
}

impl Consumer {
    pub(crate) fn new(client: Client, subscription: &str, batch: usize) -> Self {
        Self {
            client,
            consume_path: consume_path(subscription, batch),
            ack_path: ack_path(subscription),
            acks: Vec::new(),
        }
    }

    /// Returns how many messages there were.
    pub(crate) async fn consume_and_ack(&mut self) -> usize {
        self.consume().await;
        self.ack().await
    }

    /// The answer. What it holds is acked by the next `ack`.
    pub(crate) async fn consume(&mut self) -> &[u8] {
        let answer = self.client.get(&self.consume_path).await;
        write_acks(receipts(answer), &mut self.acks);
        answer
    }

    /// Returns how many messages it acked.
    pub(crate) async fn ack(&mut self) -> usize {
        if self.acks.is_empty() {
            return 0;
        }
        self.client.post(&self.ack_path, &self.acks).await;
        memchr::memchr_iter(b'"', &self.acks).count() / 2
    }

    /// Acks the wanted ones of what was consumed.
    pub(crate) async fn ack_only(&mut self, wanted: &[bool]) {
        let all = std::mem::take(&mut self.acks);
        let receipts = all.split(|byte| *byte == b'"').skip(1).step_by(2);
        let receipts = receipts.zip(wanted).filter(|(_, wanted)| **wanted);
        write_acks(receipts.map(|(receipt, _)| receipt), &mut self.acks);
        self.ack().await;
    }
}
