//! Listeners: they are sent events, and settle them by calls of their own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::chunked;
use super::super::clock::Clock;
use super::super::history::{Event, Handle, Outcome, Verb, What};
use super::super::stage::Stage;
use super::super::wire::{Head, TIMEOUT};
use super::super::world::Subscription;
use super::Session;
use super::streams::{Heard, SILENCE, Stream, Tell, choose};

pub async fn listen(
    stage: Arc<Stage>,
    subscription: &'static Subscription,
    number: usize,
) -> Vec<Event> {
    let mut session = Session::new(&stage, &format!("listener {number} of {}", subscription.id));
    while !session.is_over() {
        let Some(mut stream) = open(&mut session, subscription).await else {
            session.move_on();
            session.pause(100..300).await;
            continue;
        };
        loop {
            let came = stream.next(&mut session).await;
            work(&mut session, &mut stream, subscription, came.messages).await;
            if let Some((at, outcome)) = came.end {
                stream.ended(&mut session, at, outcome);
                break;
            }
            if session.is_over() || session.is_running() && session.one_in(40) {
                stream.leave(&mut session).await;
                break;
            }
        }
        session.pause(0..200).await;
    }
    session.finish()
}

async fn open(session: &mut Session, subscription: &'static Subscription) -> Option<Stream> {
    let (clock, server) = (session.stage.clock, session.server);
    let address = session.stage.servers.address(server);
    let request = format!(
        "GET /subscriptions/{}/stream?max_in_flight=20&consumer_id=listener HTTP/1.1\r\n\
         host: torture\r\n\r\n",
        subscription.id
    );
    let sent = clock.now();
    let begun = timeout(TIMEOUT, begin(address, &request)).await;
    let (outcome, stream) = match begun.unwrap_or(Err(Outcome::TimedOut)) {
        Ok(begun) => (Outcome::Done, Some(begun)),
        Err(outcome) => (outcome, None),
    };
    session.note(server, (sent, clock.now()), outcome, What::Read);
    let (stream, body) = stream?;
    let read = move |tell| read(stream, body, clock, tell);
    Some(Stream::new(subscription, server, read))
}

/// The stream, and what came of its body with its head.
async fn begin(
    address: (&'static str, u16),
    request: &str,
) -> Result<(TcpStream, Vec<u8>), Outcome> {
    let connected = TcpStream::connect(address).await;
    let mut stream = connected.map_err(|_| Outcome::NoConnection)?;
    let mut buffer = Vec::new();
    let written = stream.write_all(request.as_bytes()).await;
    written.map_err(|_| Outcome::Broken)?;
    let head = Head::read(&mut stream, &mut buffer).await;
    match head.map_or(Outcome::Broken, |head| head.outcome()) {
        Outcome::Done => Ok((stream, buffer)),
        refused => Err(refused),
    }
}

/// Tell of all that comes until the end.
async fn read(mut stream: TcpStream, mut body: Vec<u8>, clock: Clock, tell: Tell) {
    let mut text = Vec::new();
    // without a word of why, it was broken off
    let mut outcome = Outcome::Broken;
    let mut has_ended = false;
    loop {
        while let Some((chunk, rest)) = chunked::first(&body) {
            has_ended |= chunk.is_empty();
            text.extend(chunk);
            body = rest.to_vec();
        }
        while let Some(end) = text.windows(2).position(|window| window == b"\n\n") {
            match event(std::str::from_utf8(&text[..end]).unwrap()) {
                Some(("message", message)) => {
                    let _gone = tell.send((clock.now(), Heard::Message(message)));
                }
                Some((_, error)) => outcome = why(&error),
                None => {}
            }
            text.drain(..end + 2);
        }
        if has_ended {
            break;
        }
        match timeout(SILENCE, stream.read_buf(&mut body)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => break,
            Err(_) => {
                outcome = Outcome::TimedOut;
                break;
            }
        }
    }
    let _gone = tell.send((clock.now(), Heard::End(outcome)));
}

/// The kind and the data of an event, unless it is a comment.
fn event(block: &str) -> Option<(&str, Value)> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
    let data = field("data: ")?;
    Some((field("event: ")?, serde_json::from_str(data).unwrap()))
}

/// An error that ends a stream. It says nothing of its status: away is what a database may be.
pub(super) fn why(error: &Value) -> Outcome {
    assert!(error["detail"].is_string(), "{error}");
    Outcome::Failed {
        status: 503,
        retry_after: true,
    }
}

async fn work(
    session: &mut Session,
    stream: &mut Stream,
    subscription: &'static Subscription,
    messages: Vec<Handle>,
) {
    if messages.is_empty() {
        return;
    }
    if session.one_in(4) {
        session.pause(0..150).await;
    }
    let (mut acks, mut nacks) = (Vec::new(), Vec::new());
    for message in messages {
        match choose(session) {
            Some(Verb::Ack) => acks.push(message),
            Some(_) => nacks.push(message),
            None => {}
        }
    }
    for (verb, handles) in [(Verb::Ack, acks), (Verb::Nack, nacks)] {
        if handles.is_empty() {
            continue;
        }
        for receipt in settle(session, subscription, verb, handles).await {
            stream.let_go(&receipt);
        }
    }
}

/// Settle, and return the receipts of what surely is.
async fn settle(
    session: &mut Session,
    subscription: &'static Subscription,
    verb: Verb,
    mut handles: Vec<Handle>,
) -> Vec<Arc<str>> {
    let receipts: Vec<&str> = handles
        .iter()
        .filter_map(|handle| handle.receipt.as_deref())
        .collect();
    let body = if verb == Verb::Ack {
        json!({ "acks": receipts })
    } else {
        let nacks: Vec<Value> = receipts
            .iter()
            .map(|receipt| json!({ "receipt": receipt }))
            .collect();
        json!({ "nacks": nacks })
    };
    let path = format!("/subscriptions/{}/settle", subscription.id);
    let what = |answer: Option<&Value>| {
        if let Some(answer) = answer {
            let results = answer["results"].as_array().unwrap();
            handles.retain(|handle| {
                let of = |result: &&Value| result["receipt"].as_str() == handle.receipt.as_deref();
                is_done(results.iter().find(of).unwrap(), verb)
            });
        }
        What::Settle {
            subscription: subscription.id,
            verb,
            handles,
            confirmed: true,
        }
    };
    let body = body.to_string();
    let (outcome, what) = session.call(("POST", &path, &body), what).await;
    let What::Settle { handles, .. } = what else {
        return Vec::new();
    };
    if outcome != Outcome::Done {
        return Vec::new();
    }
    let settled: Vec<Arc<str>> = handles
        .iter()
        .filter_map(|handle| handle.receipt.clone())
        .collect();
    if verb == Verb::Ack {
        let acked = u64::try_from(settled.len()).unwrap();
        let tally = &session.stage.tally;
        tally.acked.fetch_add(acked, Ordering::Relaxed);
    }
    settled
}

/// Whether a result says that it was done, and not that the lease was lost, which changed nothing.
pub(super) fn is_done(result: &Value, verb: Verb) -> bool {
    let status = result["status"].as_str().unwrap();
    let done: &[&str] = match verb {
        Verb::Ack => &["acked"],
        _ => &["nacked", "dead_lettered"],
    };
    assert!(done.contains(&status) || status == "lease_lost", "{result}");
    done.contains(&status)
}
