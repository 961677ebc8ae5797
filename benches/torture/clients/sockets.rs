//! Talkers: they are sent frames on a WebSocket, and settle them by frames of their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::super::clock::Clock;
use super::super::history::{Event, Handle, Micros, Outcome, Verb, What};
use super::super::stage::Stage;
use super::super::wire::{TIMEOUT, outcome_of};
use super::super::world::Subscription;
use super::Session;
use super::events::{is_done, why};
use super::streams::{Came, Heard, SILENCE, Stream, Tell, choose};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How many messages a talker asks for at first, if it asks for them.
const CREDIT: usize = 15;

/// One side of a conversation.
struct Talker {
    subscription: &'static Subscription,
    say: SplitSink<Socket, Message>,
    stream: Stream,
    /// What it said and when, and was not answered, by receipt.
    said: HashMap<Arc<str>, (Micros, Verb, Handle)>,
    has_credit: bool,
}

/// Those of odd numbers ask for each message.
pub async fn talk(
    stage: Arc<Stage>,
    subscription: &'static Subscription,
    number: usize,
) -> Vec<Event> {
    let mut session = Session::new(&stage, &format!("talker {number} of {}", subscription.id));
    let has_credit = number % 2 == 1;
    while !session.is_over() {
        let Some(mut talker) = open(&mut session, subscription, has_credit).await else {
            session.move_on();
            session.pause(100..300).await;
            continue;
        };
        loop {
            let came = talker.stream.next(&mut session).await;
            let end = came.end;
            talker.answer(&mut session, came).await;
            if let Some((at, outcome)) = end {
                talker.silence(&mut session);
                talker.stream.ended(&mut session, at, outcome);
                break;
            }
            if session.is_over() || session.is_running() && session.one_in(40) {
                talker.leave(&mut session).await;
                break;
            }
        }
        session.pause(0..200).await;
    }
    session.finish()
}

async fn open(
    session: &mut Session,
    subscription: &'static Subscription,
    has_credit: bool,
) -> Option<Talker> {
    let (clock, server) = (session.stage.clock, session.server);
    let (host, port) = session.stage.servers.address(server);
    let mut url = format!(
        "ws://{host}:{port}/subscriptions/{}/ws?max_in_flight=20&consumer_id=talker",
        subscription.id
    );
    if has_credit {
        url.push_str(&format!("&credit={CREDIT}"));
    }
    let sent = clock.now();
    let (outcome, socket) = match timeout(TIMEOUT, connect_async(url)).await {
        Ok(Ok((socket, _))) => (Outcome::Done, Some(socket)),
        Ok(Err(Error::Http(refused))) => {
            let retry_after = refused.headers().contains_key("retry-after");
            let outcome = match outcome_of(refused.status().as_u16()) {
                Outcome::Failed { status, .. } => Outcome::Failed {
                    status,
                    retry_after,
                },
                other => other,
            };
            (outcome, None)
        }
        Ok(Err(Error::Io(_))) => (Outcome::NoConnection, None),
        Ok(Err(_)) => (Outcome::Broken, None),
        Err(_) => (Outcome::TimedOut, None),
    };
    session.note(server, (sent, clock.now()), outcome, What::Read);
    let (say, hear) = socket?.split();
    let read = move |tell| read(hear, clock, tell);
    Some(Talker {
        subscription,
        say,
        stream: Stream::new(subscription, server, read),
        said: HashMap::new(),
        has_credit,
    })
}

/// Tell of all that comes until the end.
async fn read(mut hear: SplitStream<Socket>, clock: Clock, tell: Tell) {
    let outcome = loop {
        match timeout(SILENCE, hear.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => {
                let told: Value = serde_json::from_str(&text).unwrap();
                let heard = if told["type"] == "message" {
                    Heard::Message(told)
                } else {
                    Heard::Reply(told)
                };
                let _gone = tell.send((clock.now(), heard));
            }
            Ok(Some(Ok(Message::Close(close)))) => break closed(close.as_ref()),
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(_)) | None) => break Outcome::Broken,
            Err(_) => break Outcome::TimedOut,
        }
    };
    let _gone = tell.send((clock.now(), Heard::End(outcome)));
}

/// What a close says; what says nothing, or that the server ends, is nothing that a server may do here.
fn closed(close: Option<&CloseFrame>) -> Outcome {
    match close.map(|close| u16::from(close.code)) {
        Some(1013) => Outcome::Failed {
            status: 503,
            retry_after: true,
        },
        Some(1011) => outcome_of(500),
        Some(1008) => outcome_of(403),
        Some(1002) => outcome_of(400),
        _ => Outcome::Broken,
    }
}

impl Talker {
    /// Note what was answered, and say what is to become of the messages that came.
    async fn answer(&mut self, session: &mut Session, came: Came) {
        for (at, reply) in came.replies {
            self.hear(session, at, &reply);
        }
        if came.end.is_some() {
            return;
        }
        let more = came.messages.len();
        for message in came.messages {
            let Some(verb) = choose(session) else {
                continue;
            };
            let receipt = message.receipt.clone().unwrap();
            let kind = if verb == Verb::Ack { "ack" } else { "nack" };
            let said = (session.stage.clock.now(), verb, message);
            self.said.insert(Arc::clone(&receipt), said);
            self.say(&json!({"type": kind, "receipt": &*receipt})).await;
        }
        if self.has_credit && more > 0 {
            self.say(&json!({"type": "credit", "messages": more})).await;
        }
    }

    async fn say(&mut self, frame: &Value) {
        // where it has ended, the reader hears of it
        let _ended = timeout(TIMEOUT, self.say.send(Message::text(frame.to_string()))).await;
    }

    /// Note what became of something that was said.
    fn hear(&mut self, session: &mut Session, at: Micros, reply: &Value) {
        let said = reply["receipt"].as_str();
        let Some((receipt, (sent, verb, handle))) =
            said.and_then(|said| self.said.remove_entry(said))
        else {
            // of credit, or why the stream ends
            assert!(
                reply["status"] == "credited" || reply["type"] == "error",
                "{reply}"
            );
            return;
        };
        let times = (sent, at);
        let server = self.stream.server();
        if reply["type"] == "error" {
            session.note(server, times, why(reply), What::Read);
            self.said.insert(receipt, (sent, verb, handle));
            return;
        }
        self.stream.let_go(&receipt);
        if is_done(reply, verb) {
            let what = settle(self.subscription, verb, handle, true);
            session.note(server, times, Outcome::Done, what);
            if verb == Verb::Ack {
                let tally = &session.stage.tally;
                tally.acked.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What was said and not answered may be done.
    fn silence(&mut self, session: &mut Session) {
        let server = self.stream.server();
        for (_, (sent, verb, handle)) in self.said.drain() {
            let times = (sent, session.stage.clock.now());
            let what = settle(self.subscription, verb, handle, false);
            session.note(server, times, Outcome::Told, what);
        }
    }

    /// Go away, now and then with a word.
    async fn leave(mut self, session: &mut Session) {
        if session.one_in(2) {
            let _ended = timeout(TIMEOUT, self.say.close()).await;
        }
        self.silence(session);
        drop(self.say);
        self.stream.leave(session).await;
    }
}

fn settle(
    subscription: &'static Subscription,
    verb: Verb,
    handle: Handle,
    confirmed: bool,
) -> What {
    What::Settle {
        subscription: subscription.id,
        verb,
        handles: vec![handle],
        confirmed,
    }
}
