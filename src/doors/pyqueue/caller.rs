//! Who calls: the owner of an API key, of the settings or of a client of fastpubsub. A key is always
//! needed, also where the native API asks for no token.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde_json::{Value, json};

use super::PREFIX;
use crate::app::App;
use crate::auth::scopes::{self, Scope};
use crate::auth::tokens::Identity;
use crate::config::pyqueue::keys::{EVERY_QUEUE, Key, Permission};
use crate::db;
use crate::doors::extract::parameter;
use crate::doors::requests::ClientId;
use crate::error::{Count, Error, Fault, Part, Rule};

/// Most characters of the name of a queue.
const QUEUE_MAX_LENGTH: usize = 255;
const RESOURCE: &str = "pyqueue";
const HEADER: &str = "x-api-key";

/// The owner of a key.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// Of a key of the settings.
    Key(Arc<Key>),
    /// A client of fastpubsub.
    Client(Identity),
}

impl Caller {
    /// Whether the caller may do `S` with a queue.
    fn may<S: Scope>(&self, queue: &str) -> bool {
        match self {
            Self::Key(key) => key
                .permissions(queue)
                .iter()
                .any(|permission| permission.name() == S::ACTION),
            Self::Client(Identity { scopes, .. }) => {
                scopes::allow(scopes, S::RESOURCE, S::ACTION, Some(queue))
            }
        }
    }

    /// What the caller may do with a queue.
    pub(super) fn permissions(&self, queue: &str) -> BTreeSet<Permission> {
        match self {
            Self::Key(key) => key.permissions(queue),
            Self::Client(Identity { scopes, .. }) => {
                let allows = |permission: &Permission| {
                    scopes::allow(scopes, RESOURCE, permission.name(), Some(queue))
                };
                Permission::ALL.into_iter().filter(allows).collect()
            }
        }
    }

    /// The queues that the key names: of all nothing but `*`; of a client also beginnings of names that
    /// end in `*`.
    pub(super) fn named(&self) -> BTreeSet<String> {
        match self {
            Self::Key(key) if key.queues.contains_key(EVERY_QUEUE) => {
                [EVERY_QUEUE.to_owned()].into()
            }
            Self::Key(key) => key.queues.keys().cloned().collect(),
            Self::Client(Identity { scopes, .. }) => Permission::ALL
                .into_iter()
                .flat_map(|permission| {
                    scopes::objects(scopes, RESOURCE, permission.name())
                        .unwrap_or_else(|| vec![EVERY_QUEUE.to_owned()])
                })
                .collect(),
        }
    }

    /// What the key is for.
    pub(super) async fn description(&self, app: &App) -> Result<String, Error> {
        match self {
            Self::Key(key) => Ok(key.description.clone()),
            Self::Client(Identity { client_id, .. }) => {
                Ok(db::clients::get(&app.database, *client_id).await?.name)
            }
        }
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let given = parts.headers.get(HEADER).ok_or_else(|| {
            Error::Invalid(vec![Fault {
                part: Part::Header,
                path: vec![HEADER.into()],
                rule: Rule::Required,
                given: Value::Null,
            }])
        })?;
        let invalid = Error::Unauthorized("Invalid API key");
        // one that a proxy looked at must not be another than ours
        if parts.headers.get_all(HEADER).iter().count() > 1 {
            return Err(invalid);
        }
        let given = given.to_str().map_err(|_| invalid.clone())?;
        if let Some(key) = app.settings.pyqueue.keys.find(given) {
            return Ok(Self::Key(Arc::clone(key)));
        }
        let identified = app.identify_api_key(given).await;
        let identity = identified.map_err(|error| match error.status() {
            401 => invalid,
            _ => error,
        })?;
        if let Some(known) = parts.extensions.get::<ClientId>() {
            known.set(identity.client_id);
        }
        Ok(Self::Client(identity))
    }
}

/// Proof that the caller may do `S` with the queue of the path.
#[derive(Debug)]
pub(super) struct Allowed<S> {
    /// The queue.
    pub(super) queue: Queue,
    scope: PhantomData<S>,
}

/// A queue.
#[derive(Clone, Debug)]
pub(super) struct Queue(pub(super) String);

impl Queue {
    /// The id of its topic and its subscription.
    pub(super) fn id(&self) -> String {
        format!("{PREFIX}{}", self.0)
    }

    fn parse(name: String) -> Result<Self, Error> {
        let rule = if name.chars().count() > QUEUE_MAX_LENGTH {
            Rule::AtMost(Count::Characters, QUEUE_MAX_LENGTH, None)
        } else if name.is_empty() {
            Rule::AtLeast(Count::Characters, 1, None)
        } else if name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            let text = "a queue's name has no space, no control character and no slash";
            Rule::Refused(text.to_owned())
        } else {
            return Ok(Self(name));
        };
        Err(Error::Invalid(vec![Fault {
            part: Part::Path,
            path: vec!["queue_name".into()],
            rule,
            given: json!(name),
        }]))
    }
}

impl<S: Scope> FromRequestParts<App> for Allowed<S> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let name = parameter(parts, app, "queue_name").await;
        if !caller.may::<S>(&name) {
            let text = format!(
                "Access denied: {} permission required for queue '{name}'",
                S::ACTION
            );
            return Err(Error::refused(403, text));
        }
        Ok(Self {
            queue: Queue::parse(name)?,
            scope: PhantomData,
        })
    }
}

/// The queue of the path, whatever the caller may do with it.
impl FromRequestParts<App> for Queue {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let name = parameter(parts, app, "queue_name").await;
        Self::parse(name)
    }
}

/// The id or handle of a message in the path.
#[derive(Debug)]
pub(super) struct MessageId(pub(super) String);

impl FromRequestParts<App> for MessageId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        Ok(Self(parameter(parts, app, "message_id").await))
    }
}
