//! Scopes: `*`, `resource:action` or `resource:action:object`, separated by spaces. An object is an
//! id, or the beginning of ids followed by `*`.

use std::borrow::Cow;

use uuid::Uuid;

/// Most characters of the id of a topic or subscription.
const ID_MAX_LENGTH: usize = 128;
/// Characters of a client's id.
const UUID_LENGTH: usize = 36;
/// Most characters of the name of a queue.
const QUEUE_MAX_LENGTH: usize = 255;

/// What the object of a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// The id of a topic.
    Topic,
    /// The id of a subscription.
    Subscription,
    /// The id of a client, a UUID.
    Client,
    /// The name of a queue or topic of another system's door.
    Queue,
    /// There is none: what is acted on has no id yet.
    None,
}

/// A `resource:action`.
#[derive(Debug)]
pub struct Action {
    /// What is acted on, such as `topics`.
    pub resource: &'static str,
    /// What is done, such as `publish`.
    pub action: &'static str,
    /// What its object is.
    pub object: Object,
    /// What it lets a client do.
    pub lets: &'static str,
}

/// The scope that a route needs, as a type.
pub trait Scope: Send + Sync {
    /// What is acted on, such as `topics`.
    const RESOURCE: &'static str;
    /// What is done, such as `publish`.
    const ACTION: &'static str;
}

macro_rules! scopes {
    ($($name:ident = $resource:ident : $action:ident ($object:ident) $lets:literal,)+) => {
        /// Every scope there is, beside `*`.
        pub const ACTIONS: &[Action] = &[$(Action {
            resource: stringify!($resource),
            action: stringify!($action),
            object: Object::$object,
            lets: $lets,
        }),+];

        $(
            #[doc = concat!("To ", $lets, ".")]
            #[derive(Debug)]
            pub enum $name {}
            impl Scope for $name {
                const RESOURCE: &'static str = stringify!($resource);
                const ACTION: &'static str = stringify!($action);
            }
        )+
    };
}

scopes! {
    TopicsCreate = topics:create (Topic) "create topics",
    TopicsRead = topics:read (Topic) "get and list topics",
    TopicsUpdate = topics:update (Topic) "change topics",
    TopicsDelete = topics:delete (Topic) "delete topics, with their subscriptions",
    TopicsPublish = topics:publish (Topic) "publish messages",
    TopicsSubscribe = topics:subscribe (Topic) "create subscriptions to topics, and read the messages that topics retain",
    SubscriptionsCreate = subscriptions:create (Subscription) "create subscriptions",
    SubscriptionsRead = subscriptions:read (Subscription)
        "get, list and count subscriptions; see their jobs, snapshots and part of timelines",
    SubscriptionsUpdate = subscriptions:update (Subscription)
        "change subscriptions, delete what they have not settled, seek, take and delete snapshots, cancel jobs",
    SubscriptionsDelete = subscriptions:delete (Subscription) "delete subscriptions",
    SubscriptionsConsume = subscriptions:consume (Subscription)
        "see and settle messages, dead letters and parked messages included",
    ClientsCreate = clients:create (None) "create clients",
    ClientsRead = clients:read (Client) "get and list clients",
    ClientsUpdate = clients:update (Client) "update clients",
    ClientsDelete = clients:delete (Client) "delete clients",
    PyqueueRead = pyqueue:read (Queue) "see and receive messages of PyQueue queues",
    PyqueueWrite = pyqueue:write (Queue) "add and change messages of PyQueue queues",
    PyqueueDelete = pyqueue:delete (Queue) "delete messages of PyQueue queues",
    PyqueueManage = pyqueue:manage (Queue) "clear PyQueue queues",
    BrokerPublish = broker:publish (Queue)
        "publish to queues and topics of the Message Broker door, which come with their first message",
    BrokerConsume = broker:consume (Queue)
        "see, pull and settle messages of queues and topics of the Message Broker door",
    BrokerManage = broker:manage (Queue)
        "create, purge and delete queues, topics and subscriptions of the Message Broker door",
    PulsarPublish = pulsar:publish (Queue) "send messages to topics of the Pulsar Proxy door",
    PulsarSubscribe = pulsar:subscribe (Queue)
        "receive the messages of topics of the Pulsar Proxy door, replayed ones too",
}

/// Check that every scope can match a request.
///
/// # Errors
/// A sentence that names the first scope that cannot.
pub fn validate(scopes: &str) -> Result<(), String> {
    scopes
        .split_whitespace()
        .find(|scope| *scope != "*" && parse(scope).is_none())
        .map_or(Ok(()), |scope| Err(format!("Invalid scope {scope}")))
}

/// Whether granted scopes allow an action, on one object if the request names one.
#[must_use]
pub fn allow(granted: &str, resource: &str, action: &str, object: Option<&str>) -> bool {
    let object = object.map(|id| match Uuid::parse_str(id) {
        // of the several ways to write a client's id
        Ok(uuid) if resource == "clients" => Cow::Owned(uuid.to_string()),
        _ => Cow::Borrowed(id),
    });
    grants(granted, resource, action).any(|pattern| match (pattern, &object) {
        (None, _) => true,
        (Some(pattern), Some(object)) => match pattern.strip_suffix('*') {
            Some(beginning) => object.starts_with(beginning),
            None => pattern == *object,
        },
        (Some(_), None) => false,
    })
}

/// Whether granted scopes allow an action on at least one object.
#[must_use]
pub fn allow_some(granted: &str, resource: &str, action: &str) -> bool {
    grants(granted, resource, action).next().is_some()
}

/// The objects on which granted scopes allow an action: ids, and beginnings of ids that end in `*`.
/// None when it is all.
#[must_use]
pub fn objects(granted: &str, resource: &str, action: &str) -> Option<Vec<String>> {
    grants(granted, resource, action)
        .map(|pattern| pattern.map(Cow::into_owned))
        .collect()
}

/// The first of the wanted scopes that goes beyond the granted ones. What can never match a request
/// is beyond nothing.
#[must_use]
pub fn beyond<'a>(granted: &str, wanted: &'a str) -> Option<&'a str> {
    wanted
        .split_whitespace()
        .find(|scope| match (*scope, parse(scope)) {
            ("*", _) => !granted.split_whitespace().any(|granted| granted == "*"),
            (_, None) => false,
            (_, Some((action, object))) => {
                !grants(granted, action.resource, action.action).any(|pattern| {
                    match (pattern, &object) {
                        (None, _) => true,
                        (Some(_), None) => false,
                        (Some(pattern), Some(object)) => {
                            pattern == *object
                                || pattern
                                    .strip_suffix('*')
                                    .is_some_and(|beginning| object.starts_with(beginning))
                        }
                    }
                })
            }
        })
}

/// On what granted scopes allow an action: each time an object, or none for all.
fn grants<'a>(
    granted: &'a str,
    resource: &'a str,
    action: &'a str,
) -> impl Iterator<Item = Option<Cow<'a, str>>> {
    granted.split_whitespace().filter_map(move |scope| {
        if scope == "*" {
            return Some(None);
        }
        let rest = scope.strip_prefix(resource)?.strip_prefix(':')?;
        rest.strip_prefix(action)
            .filter(|object| object.is_empty() || object.starts_with(':'))?;
        parse(scope).map(|(_, object)| object)
    })
}

/// A scope that can match a request, but for `*`: its action, and its object as ids are compared.
fn parse(scope: &str) -> Option<(&'static Action, Option<Cow<'_, str>>)> {
    let mut parts = scope.splitn(3, ':');
    let (resource, action) = (parts.next()?, parts.next()?);
    let known = ACTIONS
        .iter()
        .find(|known| (known.resource, known.action) == (resource, action))?;
    match parts.next() {
        None => Some((known, None)),
        Some(object) => parse_object(known.object, object).map(|object| (known, Some(object))),
    }
}

fn parse_object(kind: Object, object: &str) -> Option<Cow<'_, str>> {
    let (beginning, is_whole) = match object.strip_suffix('*') {
        Some(beginning) => (beginning, false),
        None => (object, true),
    };
    match kind {
        Object::None => None,
        Object::Topic | Object::Subscription => {
            let is_id = beginning.len() <= ID_MAX_LENGTH
                && !(is_whole && beginning.is_empty())
                && beginning
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
            is_id.then_some(Cow::Borrowed(object))
        }
        Object::Queue => {
            let is_name = beginning.chars().count() <= QUEUE_MAX_LENGTH
                && !(is_whole && beginning.is_empty())
                && !beginning.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/');
            is_name.then_some(Cow::Borrowed(object))
        }
        Object::Client if is_whole => Uuid::parse_str(object)
            .ok()
            .map(|id| Cow::Owned(id.to_string())),
        Object::Client => {
            let is_beginning = beginning.len() <= UUID_LENGTH
                && beginning.bytes().enumerate().all(|(at, byte)| match at {
                    8 | 13 | 18 | 23 => byte == b'-',
                    _ => byte.is_ascii_hexdigit(),
                });
            is_beginning.then(|| Cow::Owned(object.to_ascii_lowercase()))
        }
    }
}

#[cfg(test)]
#[path = "scopes_tests.rs"]
mod tests;
