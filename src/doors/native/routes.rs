//! What each route asks for: which scopes, and what their object is there. The handlers check it with
//! [`super::caller`]; tests hold the table against them, the OpenAPI document and `docs/scopes.md`.

/// Where the object of a scope comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is the `{id}` of the path. Another one is 403, whether or not it exists.
    Path,
    /// A field of the body names it. Another one is 403, whether or not it exists.
    Body(&'static str),
    /// It is the subscription of what `{id}` names. What belongs to another one is 404, as if it were
    /// not there.
    Owner,
    /// Each entry of a list has one: the others are not shown.
    Each,
    /// There is none.
    Nothing,
}

/// A scope that a route needs.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// What is acted on, such as `topics`.
    pub resource: &'static str,
    /// What is done, such as `publish`.
    pub action: &'static str,
    /// Where its object comes from.
    pub object: Place,
}

/// A scope that a route needs in some cases.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    /// Resource and action.
    pub scope: (&'static str, &'static str),
    /// On what, and in which case.
    pub when: &'static str,
}

/// A route that is not public.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// All of these are needed.
    pub needs: &'static [Need],
    /// And these in some cases.
    pub beside: &'static [Beside],
}

const fn need(resource: &'static str, action: &'static str, object: Place) -> Need {
    Need {
        resource,
        action,
        object,
    }
}

macro_rules! routes {
    ($($method:ident $path:literal $($resource:ident : $action:ident ($object:expr)),+
        $(; $($beside:ident : $beside_action:ident $when:literal),+)? .)+) => {
        &[$(Route {
            method: stringify!($method),
            path: $path,
            needs: &[$(need(stringify!($resource), stringify!($action), $object)),+],
            beside: &[$($(Beside {
                scope: (stringify!($beside), stringify!($beside_action)),
                when: $when,
            }),+)?],
        }),+]
    };
}

use Place::{Body, Each, Nothing, Owner, Path};

/// Every route that is not public, in the order of the documentation.
pub const ROUTES: &[Route] = routes! {
    POST "/topics" topics:create(Body("id")).
    GET "/topics" topics:read(Each).
    GET "/topics/{id}" topics:read(Path).
    PATCH "/topics/{id}" topics:update(Path).
    DELETE "/topics/{id}" topics:delete(Path).
    POST "/topics/{id}/messages" topics:publish(Path).
    POST "/topics/{id}/publish" topics:publish(Path).
    GET "/topics/{id}/messages" topics:subscribe(Path).
    POST "/subscriptions" subscriptions:create(Body("id"));
        topics:subscribe "`topic_id` of the body, unless the token has `subscriptions:create` without an object",
        topics:publish "`dead_letter_topic_id` of the body, if it is given".
    GET "/subscriptions" subscriptions:read(Each).
    GET "/subscriptions/{id}" subscriptions:read(Path).
    PATCH "/subscriptions/{id}" subscriptions:update(Path);
        topics:publish "`dead_letter_topic_id` of the body, if it is given".
    DELETE "/subscriptions/{id}" subscriptions:delete(Path).
    POST "/subscriptions/{id}/push/secret" subscriptions:update(Path).
    GET "/subscriptions/{id}/metrics" subscriptions:read(Path).
    POST "/subscriptions/{id}/filter-preview" subscriptions:consume(Path);
        subscriptions:update "`id` of the path, for messages that the subscription's own filter does not let pass".
    POST "/subscriptions/{id}/push/test" subscriptions:update(Path).
    POST "/subscriptions/{id}/seek" subscriptions:update(Path);
        subscriptions:read "the subscription of `snapshot_id`, if it is another one".
    POST "/snapshots" subscriptions:update(Body("subscription_id")).
    GET "/snapshots" subscriptions:read(Each).
    DELETE "/snapshots/{id}" subscriptions:update(Owner).
    GET "/jobs" subscriptions:read(Each).
    GET "/jobs/{id}" subscriptions:read(Owner).
    DELETE "/jobs/{id}" subscriptions:update(Owner).
    GET "/subscriptions/{id}/messages" subscriptions:consume(Path).
    DELETE "/subscriptions/{id}/messages" subscriptions:update(Path).
    DELETE "/subscriptions/{id}/messages/{message_id}" subscriptions:update(Path).
    GET "/subscriptions/{id}/browse" subscriptions:consume(Path).
    POST "/subscriptions/{id}/acks" subscriptions:consume(Path).
    POST "/subscriptions/{id}/nacks" subscriptions:consume(Path).
    POST "/subscriptions/{id}/pull" subscriptions:consume(Path).
    GET "/subscriptions/{id}/stream" subscriptions:consume(Path).
    GET "/subscriptions/{id}/ws" subscriptions:consume(Path).
    POST "/subscriptions/{id}/settle" subscriptions:consume(Path).
    GET "/subscriptions/{id}/dlq" subscriptions:consume(Path).
    DELETE "/subscriptions/{id}/dlq" subscriptions:consume(Path).
    POST "/subscriptions/{id}/dlq/reprocess" subscriptions:consume(Path).
    GET "/subscriptions/{id}/parked" subscriptions:consume(Path).
    POST "/subscriptions/{id}/parked/resume" subscriptions:consume(Path).
    GET "/messages/{id}" subscriptions:read(Owner).
    POST "/transactions" subscriptions:consume(Body("acks.subscription_id")),
        topics:publish(Body("publishes.topic_id")).
    POST "/clients" clients:create(Nothing).
    GET "/clients" clients:read(Each).
    GET "/clients/{id}" clients:read(Path).
    PUT "/clients/{id}" clients:update(Path).
    DELETE "/clients/{id}" clients:delete(Path).
    POST "/clients/{id}/credentials" clients:update(Path).
};

/// The table as Markdown, for people.
#[must_use]
pub fn markdown() -> String {
    let mut table = "| route | scope | its object is | beside it |\n|---|---|---|---|\n".to_owned();
    for route in ROUTES {
        let beside: Vec<String> = route
            .beside
            .iter()
            .map(|beside| {
                let (resource, action) = beside.scope;
                format!("`{resource}:{action}` on {}", beside.when)
            })
            .collect();
        for need in route.needs {
            let object = match need.object {
                Path => "the `{id}` of the path".to_owned(),
                Body(field) => format!("`{field}` of the body"),
                Owner => match route.path {
                    "/messages/{id}" => "each subscription of the topic; the others are not shown",
                    _ => "the subscription that it belongs to",
                }
                .to_owned(),
                Each => match route.path {
                    "/jobs" | "/snapshots" => "the subscription of each; the others are not shown",
                    _ => "each; the others are not shown",
                }
                .to_owned(),
                Nothing => "-".to_owned(),
            };
            table.push_str(&format!(
                "| `{} {}` | `{}:{}` | {object} | {} |\n",
                route.method,
                route.path,
                need.resource,
                need.action,
                beside.join("; ")
            ));
        }
    }
    table
}
