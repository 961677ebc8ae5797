//! The topics and subscriptions of a run, and the payload of every number. Payloads follow from the
//! number, so that the checker knows what was sent without having kept it.

use serde_json::{Value, json};

/// Given to the servers; holds where a subscription has no ack deadline of its own.
pub const DEFAULT_ACK_DEADLINE_SECONDS: u32 = 3;

/// A value that a filter names.
pub enum Is {
    Text(&'static str),
    Number(i64),
    Flag(bool),
}

/// How a subscription hands its messages out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Plain,
    /// Those of a key in order, to one at a time.
    Ordered,
    /// Shared evenly between keys.
    Fair,
    /// No more than so many at once.
    Limited(usize),
}

/// How consumers get their messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Pulls,
    /// Server-Sent Events.
    Events,
    /// WebSockets.
    Sockets,
    Pushes,
}

/// A subscription, as it is created.
pub struct Subscription {
    pub id: &'static str,
    pub topic: &'static str,
    /// All fields must match, each with any of its values.
    pub filter: &'static [(&'static str, &'static [Is])],
    pub max_delivery_attempts: u32,
    pub backoff_max_seconds: u32,
    pub ack_deadline_seconds: Option<u32>,
    pub manner: Manner,
    /// How many consumers take what they get, beside those who lease it.
    pub takers: usize,
    pub by: By,
}

/// Messages of it are changed after they were published.
pub const MENDED_TOPIC: &str = "parcels";
pub const PAUSED: &str = "parcels-paused";
pub const PURGED: &str = "parcels-purged";
/// Messages of it have keys.
pub const KEYED_TOPIC: &str = "accounts";
/// What is acked here by a transaction is published to the topic of transfers by it.
pub const MOVED: &str = "accounts-moved";
pub const TRANSFERS: &str = "transfers";
/// What is published to it is streamed and pushed.
pub const TOLD_TOPIC: &str = "alerts";
const KEYS: u64 = 40;
/// How long a receiver may take for its answer.
pub const PUSH_TIMEOUT_SECONDS: u32 = 1;
/// How much longer what is pushed is leased.
const PUSH_MARGIN_SECONDS: u32 = 10;

/// Those that publishers publish to.
pub const TOPICS: [&str; 6] = [
    "orders",
    "events",
    "jobs",
    KEYED_TOPIC,
    MENDED_TOPIC,
    TOLD_TOPIC,
];

/// Every topic has one subscription without a filter that is never purged, which shows what was published at
/// all, and from which nothing is taken, so that somebody knows what it says.
pub const SUBSCRIPTIONS: [Subscription; 17] = [
    Subscription {
        id: "orders-all",
        topic: "orders",
        filter: &[],
        max_delivery_attempts: 5,
        backoff_max_seconds: 2,
        ack_deadline_seconds: Some(2),
        manner: Manner::Plain,
        takers: 0,
        by: By::Pulls,
    },
    Subscription {
        id: "orders-abroad",
        topic: "orders",
        filter: &[("country", &[Is::Text("JP"), Is::Text("US")])],
        max_delivery_attempts: 3,
        backoff_max_seconds: 1,
        ack_deadline_seconds: Some(1),
        manner: Manner::Plain,
        takers: 2,
        by: By::Pulls,
    },
    Subscription {
        id: "events-all",
        topic: "events",
        filter: &[],
        max_delivery_attempts: 4,
        backoff_max_seconds: 2,
        ack_deadline_seconds: None,
        manner: Manner::Plain,
        takers: 0,
        by: By::Pulls,
    },
    Subscription {
        id: "events-tagged",
        topic: "events",
        filter: &[
            ("tags", &[Is::Text("a"), Is::Text("é\"'\\")]),
            ("level", &[Is::Number(1), Is::Number(2)]),
        ],
        max_delivery_attempts: 2,
        backoff_max_seconds: 1,
        ack_deadline_seconds: Some(3),
        manner: Manner::Plain,
        takers: 0,
        by: By::Pulls,
    },
    Subscription {
        id: "jobs-all",
        topic: "jobs",
        filter: &[],
        max_delivery_attempts: 1,
        backoff_max_seconds: 1,
        ack_deadline_seconds: Some(1),
        manner: Manner::Plain,
        takers: 0,
        by: By::Pulls,
    },
    Subscription {
        id: "jobs-urgent",
        topic: "jobs",
        filter: &[("urgent", &[Is::Flag(true)])],
        max_delivery_attempts: 3,
        backoff_max_seconds: 2,
        ack_deadline_seconds: Some(2),
        manner: Manner::Plain,
        takers: 0,
        by: By::Pulls,
    },
    whole(MOVED, KEYED_TOPIC, Manner::Plain, 0),
    whole("accounts-ordered", KEYED_TOPIC, Manner::Ordered, 1),
    whole("accounts-fair", KEYED_TOPIC, Manner::Fair, 0),
    whole("accounts-limited", KEYED_TOPIC, Manner::Limited(20), 1),
    whole("transfers-all", TRANSFERS, Manner::Plain, 0),
    whole("parcels-all", MENDED_TOPIC, Manner::Plain, 0),
    whole(PAUSED, MENDED_TOPIC, Manner::Plain, 1),
    whole(PURGED, MENDED_TOPIC, Manner::Plain, 1),
    told("alerts-events", By::Events, 3),
    told("alerts-sockets", By::Sockets, 3),
    told(
        "alerts-pushed",
        By::Pushes,
        PUSH_TIMEOUT_SECONDS + PUSH_MARGIN_SECONDS,
    ),
];

/// Without being asked for each message.
const fn told(id: &'static str, by: By, ack_deadline_seconds: u32) -> Subscription {
    Subscription {
        ack_deadline_seconds: Some(ack_deadline_seconds),
        by,
        ..whole(id, TOLD_TOPIC, Manner::Plain, 0)
    }
}

/// Without a filter.
const fn whole(
    id: &'static str,
    topic: &'static str,
    manner: Manner,
    takers: usize,
) -> Subscription {
    Subscription {
        id,
        topic,
        filter: &[],
        max_delivery_attempts: 5,
        backoff_max_seconds: 1,
        ack_deadline_seconds: Some(2),
        manner,
        takers,
        by: By::Pulls,
    }
}

/// The subscription of an id.
#[must_use]
pub fn subscription(id: &str) -> &'static Subscription {
    let found = SUBSCRIPTIONS.iter().find(|known| known.id == id);
    found.unwrap_or_else(|| panic!("no subscription {id}"))
}

impl Subscription {
    /// The body that creates it.
    #[must_use]
    pub fn body(&self) -> Value {
        let filter: serde_json::Map<String, Value> = self
            .filter
            .iter()
            .map(|(field, values)| ((*field).to_owned(), values.iter().map(Is::json).collect()))
            .collect();
        let mut body = json!({
            "id": self.id,
            "topic_id": self.topic,
            "filter": filter,
            "max_delivery_attempts": self.max_delivery_attempts,
            "backoff_min_seconds": 1,
            "backoff_max_seconds": self.backoff_max_seconds,
            "ack_deadline_seconds": self.ack_deadline_seconds,
        });
        match self.manner {
            Manner::Plain => {}
            Manner::Ordered => body["enable_ordering"] = json!(true),
            Manner::Fair => body["fairness_key"] = json!("key"),
            Manner::Limited(messages) => body["max_in_flight"] = json!(messages),
        }
        body
    }

    /// The key within which it hands messages out in order; where it has none, all of them are in it.
    #[must_use]
    pub fn lane(&self, seed: u64, number: u64) -> u64 {
        match self.manner {
            Manner::Ordered | Manner::Fair => key(seed, number),
            Manner::Plain | Manner::Limited(_) => 0,
        }
    }

    /// How long a delivery is leased at least.
    #[must_use]
    pub fn lease_micros(&self) -> u64 {
        let seconds = self.ack_deadline_seconds;
        u64::from(seconds.unwrap_or(DEFAULT_ACK_DEADLINE_SECONDS)) * 1_000_000
    }

    /// Whether the message of a number must reach it, if it was published to its topic.
    #[must_use]
    pub fn receives(&self, seed: u64, number: u64) -> bool {
        let payload = payload(seed, number);
        self.filter.iter().all(|(field, values)| {
            let matches = |value: &Value| values.iter().any(|wanted| wanted.json() == *value);
            match payload.get(field) {
                Some(Value::Array(elements)) => elements.iter().any(matches),
                Some(value) => matches(value),
                None => false,
            }
        })
    }
}

impl Is {
    fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Number(number) => json!(number),
            Self::Flag(flag) => json!(flag),
        }
    }
}

/// The key of a number's message in the topic of accounts; the first has a third of them.
#[must_use]
pub fn key(seed: u64, number: u64) -> u64 {
    let dice = mix(seed ^ mix(number).rotate_left(17));
    if dice.is_multiple_of(3) {
        0
    } else {
        (dice >> 8) % KEYS
    }
}

/// The message of a number. Some lack the fields that filters look at.
#[must_use]
pub fn payload(seed: u64, number: u64) -> Value {
    let dice = mix(seed ^ mix(number));
    let face = |shift: u32, faces: u64| (dice >> shift) % faces;
    let pick = |shift: u32, words: &[&'static str]| {
        let at = usize::try_from(face(shift, u64::try_from(words.len()).unwrap_or(1)));
        words[at.unwrap_or_default()]
    };
    let mut payload = json!({
        "n": number,
        "country": pick(0, &["BR", "US", "JP", "us"]),
        "level": face(8, 4),
        "pad": "x".repeat(usize::try_from(face(16, 200)).unwrap_or_default()),
    });
    if face(24, 4) > 0 {
        payload["tags"] = json!([pick(26, &["a", "b"]), pick(30, &["é\"'\\", "c", "d"])]);
    }
    if face(36, 3) > 0 {
        payload["urgent"] = match face(40, 3) {
            0 => json!(true),
            1 => json!(false),
            _ => json!("true"),
        };
    }
    payload
}

/// The message of a number as an update wrote it; revision 0 is as it was published. Some get large.
#[must_use]
pub fn revised(seed: u64, number: u64, revision: u64) -> Value {
    let mut payload = payload(seed, number);
    if revision > 0 {
        payload["revision"] = json!(revision);
        if revision.is_multiple_of(4) {
            payload["padding"] = json!("y".repeat(1000));
        }
    }
    payload
}

/// A short stand-in for a payload: equal where the payloads are equal as JSON.
#[must_use]
pub fn digest(payload: &Value) -> u64 {
    // an object's fields are printed in one order, whatever the order they came in
    payload.to_string().bytes().fold(0, |digest, byte| {
        mix(digest ^ u64::from(byte)).wrapping_add(1)
    })
}

/// splitmix64
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
