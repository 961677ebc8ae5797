//! The receiver of pushes: it takes most, and refuses some, answers late or never, breaks off, or fails for a
//! while. In the end it takes all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rand::RngExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::history::{Delivery, Event, Handle, Micros, Outcome, SOME, Verb, What};
use super::super::stage::{Phase, Stage};
use super::super::wire::Head;
use super::super::world::{PUSH_TIMEOUT_SECONDS, Subscription, digest};
use super::Session;

/// How often an idle connection looks whether the run is over.
const LOOK: Duration = Duration::from_millis(100);
/// Longer than it takes from a claim to the arrival of its push, also of a server that is frozen meanwhile: it
/// sends within 5 s, and for as long as an answer may take.
const WAY: Micros = 12_000_000;
/// How many pushes in a row fail where it fails for a while: enough for the endpoint to be left alone.
const ILL: u32 = 6;

/// What it does with a push.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Take,
    /// About when the time for an answer is over.
    TakeLate,
    Fail,
    /// Asks for patience.
    Refuse,
    Hang,
    BreakOff,
}

/// Where pushes arrive.
pub struct Endpoint(TcpListener);

impl Endpoint {
    pub async fn open() -> Self {
        Self(TcpListener::bind(("127.0.0.1", 0)).await.unwrap())
    }

    pub fn url(&self) -> String {
        format!("http://{}/pushed", self.0.local_addr().unwrap())
    }
}

pub async fn receive(
    stage: Arc<Stage>,
    subscription: &'static Subscription,
    endpoint: Endpoint,
) -> Vec<Event> {
    let mut connections: JoinSet<Vec<Event>> = JoinSet::new();
    let ill = Arc::new(AtomicU32::new(0));
    while stage.phase() != Phase::Over {
        let Ok(accepted) = timeout(LOOK, endpoint.0.accept()).await else {
            continue;
        };
        let (stream, _) = accepted.unwrap();
        let session = Session::new(&stage, &format!("receiver {}", connections.len()));
        connections.spawn(serve(session, subscription, stream, Arc::clone(&ill)));
    }
    connections.join_all().await.concat()
}

/// Answer what comes over one connection.
async fn serve(
    mut session: Session,
    subscription: &'static Subscription,
    mut stream: TcpStream,
    ill: Arc<AtomicU32>,
) -> Vec<Event> {
    let mut buffer = Vec::new();
    let mut is_kept = true;
    while is_kept {
        let pushed = tokio::select! {
            pushed = read(&mut stream, &mut buffer) => pushed,
            () = over(&session.stage) => None,
        };
        let Some(pushed) = pushed else { break };
        let handle = arrived(&mut session, subscription, &pushed);
        let manner = choose(&mut session, &ill);
        is_kept = answer(&mut session, &mut stream, manner, (subscription, handle)).await;
    }
    session.finish()
}

async fn over(stage: &Stage) {
    while stage.phase() != Phase::Over {
        sleep(LOOK).await;
    }
}

/// A push, if the whole of it comes.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Value> {
    let head = Head::read(stream, buffer).await?;
    let length = head.length().unwrap();
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body: Vec<u8> = buffer.drain(..length).collect();
    Some(serde_json::from_slice(&body).unwrap())
}

fn arrived(session: &mut Session, subscription: &'static Subscription, pushed: &Value) -> Handle {
    let at = session.stage.clock.now();
    let id = pushed["message_id"].as_str().unwrap();
    let message = &pushed["message"];
    assert_eq!(pushed["subscription_id"], subscription.id, "{pushed}");
    let receipt: Arc<str> = format!("push {id} {:x}", session.random.random::<u64>()).into();
    let delivery = Delivery {
        id: Uuid::parse_str(id).unwrap(),
        number: message["n"].as_u64(),
        revision: 0,
        digest: digest(message),
        attempts: u32::try_from(pushed["attempt"].as_u64().unwrap()).unwrap(),
        receipt: Arc::clone(&receipt),
        taken: false,
    };
    let id = delivery.id;
    let what = What::Consume {
        subscription: subscription.id,
        deliveries: vec![delivery],
        takes: None,
    };
    let tally = &session.stage.tally;
    tally.delivered.fetch_add(1, Ordering::Relaxed);
    session.note(SOME, (at.saturating_sub(WAY), at), Outcome::Done, what);
    Handle {
        id,
        receipt: Some(receipt),
    }
}

fn choose(session: &mut Session, ill: &AtomicU32) -> Manner {
    if !session.is_running() {
        return Manner::Take;
    }
    if session.one_in(300) {
        ill.store(ILL, Ordering::SeqCst);
    }
    let left = ill.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
        left.checked_sub(1)
    });
    match session.random.random_range(0..50) {
        _ if left.is_ok() => Manner::Fail,
        0..=3 => Manner::Fail,
        4 => Manner::Refuse,
        5 => Manner::TakeLate,
        6 => Manner::Hang,
        7 => Manner::BreakOff,
        _ => Manner::Take,
    }
}

/// Whether the connection goes on.
async fn answer(
    session: &mut Session,
    stream: &mut TcpStream,
    manner: Manner,
    (subscription, handle): (&'static Subscription, Handle),
) -> bool {
    let limit = u64::from(PUSH_TIMEOUT_SECONDS) * 1000;
    let began = session.stage.clock.now();
    let (verb, text, goes_on) = match manner {
        Manner::Take | Manner::TakeLate => (Verb::Ack, "204 No Content\r\n\r\n", true),
        Manner::Fail => (
            Verb::Nack,
            "500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
            true,
        ),
        Manner::Refuse => (
            Verb::GiveBack,
            "503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\n\r\n",
            true,
        ),
        // the head of an answer, or half of it
        Manner::Hang => (Verb::GiveBack, "200 OK\r\ncontent-length: 2\r\n\r\n", false),
        Manner::BreakOff => (Verb::GiveBack, "204 No", false),
    };
    if manner == Manner::TakeLate {
        note(
            session,
            (subscription, handle.clone()),
            began,
            Verb::GiveBack,
        );
        session.pause(limit * 7 / 10..limit * 13 / 10).await;
    }
    let sent = session.stage.clock.now();
    let written = stream
        .write_all(format!("HTTP/1.1 {text}").as_bytes())
        .await;
    note(session, (subscription, handle), sent, verb);
    if manner == Manner::Hang {
        session.pause(limit * 12 / 10..limit * 25 / 10).await;
    }
    goes_on && written.is_ok()
}

fn note(
    session: &mut Session,
    (subscription, handle): (&'static Subscription, Handle),
    sent: Micros,
    verb: Verb,
) {
    let what = What::Settle {
        subscription: subscription.id,
        verb,
        handles: vec![handle],
        confirmed: false,
    };
    if verb == Verb::Ack {
        let tally = &session.stage.tally;
        tally.acked.fetch_add(1, Ordering::Relaxed);
    }
    let times = (sent, session.stage.clock.now());
    session.note(SOME, times, Outcome::Told, what);
}
