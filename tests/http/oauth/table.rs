//! The table of routes and scopes, tried: every route with every kind of scope, on things that are
//! there.

use std::collections::BTreeSet;
use std::path::Path;

use fastpubsub::auth::scopes::{ACTIONS, Object, validate};
use fastpubsub::doors::native::routes::{Need, Place, ROUTES, Route, markdown};
use jsonwebtoken::Algorithm::HS256;
use serde_json::{Value, json};

use super::{AUTH, claims, sign};
use crate::support::{Answer, SECRET_KEY, TestApp, answer};

/// Whose things a request is about.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Whose {
    Own,
    Foreign,
}
use Whose::{Foreign, Own};

const OWN_CLIENT: &str = "0189aaaa-0000-7000-8000-000000000001";
const FOREIGN_CLIENT: &str = "0189bbbb-0000-7000-8000-000000000002";
const OWN_JOB: &str = "0189aaaa-0000-4000-8000-000000000003";
const FOREIGN_JOB: &str = "0189bbbb-0000-4000-8000-000000000004";

/// The things, those that a request deleted too: a topic, subscription, snapshot, job and client of
/// each kind.
const THINGS: &str = "do $$
declare
    v_prefix text;
begin
    foreach v_prefix in array array['own', 'foreign'] loop
        if not exists (select from pubsub_data.topics t where t.topic_id = v_prefix || '-t') then
            perform pubsub.create_topic(v_prefix || '-t');
        end if;
        if not exists (select from pubsub_data.subscriptions s
            where s.subscription_id = v_prefix || '-s') then
            perform pubsub.create_subscription(v_prefix || '-s', v_prefix || '-t');
        end if;
        if not exists (select from pubsub.browse_messages(v_prefix || '-s')) then
            perform pubsub.publish_messages(v_prefix || '-t', array['{\"n\": 1}'::jsonb]);
        end if;
        if not exists (select from pubsub_data.snapshots n
            where n.snapshot_id = v_prefix || '-n') then
            perform pubsub.create_snapshot(v_prefix || '-n', v_prefix || '-s');
        end if;
        insert into pubsub_data.jobs (job_id, kind, topic_key, subscription_key, state, arguments)
        select case v_prefix when 'own' then 'OWN_JOB'::uuid else 'FOREIGN_JOB' end, 'seek',
            s.topic_key, s.subscription_key, 'done', '{}'
        from pubsub_data.subscriptions s where s.subscription_id = v_prefix || '-s'
        on conflict do nothing;
        insert into pubsub_data.clients (client_id, name, scopes, is_active, secret_hash)
        values (case v_prefix when 'own' then 'OWN_CLIENT'::uuid else 'FOREIGN_CLIENT' end,
            v_prefix, '', true, 'sha256$')
        on conflict do nothing;
    end loop;
    delete from pubsub_data.topics t where t.topic_id like '%-new';
    delete from pubsub_data.subscriptions s where s.subscription_id like '%-new';
    delete from pubsub_data.snapshots n where n.snapshot_id = 'new';
end $$";

struct Tried {
    app: TestApp,
    /// Any client; tokens are signed with its id.
    client: String,
}

impl Tried {
    async fn start() -> Self {
        let app = TestApp::start_with(&AUTH).await;
        let (client, _) = app.client_with("*").await;
        Self { app, client }
    }

    /// Call a route with a token of these scopes. What it is about is there before.
    async fn call(&self, route: &Route, whose: Whose, scopes: &str) -> Answer {
        let things = THINGS
            .replace("OWN_JOB", OWN_JOB)
            .replace("FOREIGN_JOB", FOREIGN_JOB)
            .replace("OWN_CLIENT", OWN_CLIENT)
            .replace("FOREIGN_CLIENT", FOREIGN_CLIENT);
        sqlx::raw_sql(sqlx::AssertSqlSafe(things))
            .execute(&self.app.pool())
            .await
            .unwrap();
        let mut claims = claims(&self.client);
        claims["scope"] = json!(scopes);
        let token = sign(HS256, SECRET_KEY, &claims);
        let mut path = route.path.replace("{id}", &self.id(route, whose).await);
        if path.contains("{message_id}") {
            path = path.replace("{message_id}", &self.message(whose).await);
        }
        let mut request = self.app.request(route.method, &path).bearer_auth(token);
        if let Some(body) = body(route, whose) {
            request = request.json(&body);
        }
        if route.path.ends_with("/stream") {
            // it would go on
            let stream = request.send().await.unwrap();
            if stream.status() == 200 {
                return Answer {
                    status: 200,
                    headers: stream.headers().clone(),
                    body: String::new(),
                };
            }
            return Answer {
                status: stream.status().as_u16(),
                headers: stream.headers().clone(),
                body: stream.text().await.unwrap(),
            };
        }
        answer(request).await
    }

    /// A message that is not settled.
    async fn message(&self, whose: Whose) -> String {
        let subscription = if whose == Own { "own-s" } else { "foreign-s" };
        sqlx::query_scalar("select b.message_id::text from pubsub.browse_messages($1) b limit 1")
            .bind(subscription)
            .fetch_one(&self.app.pool())
            .await
            .unwrap()
    }

    /// What `{id}` of a route's path is.
    async fn id(&self, route: &Route, whose: Whose) -> String {
        let (own, foreign) = match route.path.split('/').nth(1).unwrap() {
            "topics" => ("own-t", "foreign-t"),
            "subscriptions" => ("own-s", "foreign-s"),
            "snapshots" => ("own-n", "foreign-n"),
            "jobs" => (OWN_JOB, FOREIGN_JOB),
            "clients" => (OWN_CLIENT, FOREIGN_CLIENT),
            "transactions" => ("", ""),
            "messages" => {
                let topic = if whose == Own { "own-t" } else { "foreign-t" };
                return sqlx::query_scalar(
                    "select m.message_id::text from pubsub_data.messages m
                    join pubsub_data.topics t using (topic_key) where t.topic_id = $1
                    order by m.message_id desc limit 1",
                )
                .bind(topic)
                .fetch_one(&self.app.pool())
                .await
                .unwrap();
            }
            other => panic!("what is an id of {other}?"),
        };
        if whose == Own { own } else { foreign }.to_owned()
    }
}

/// A body that a route takes.
fn body(route: &Route, whose: Whose) -> Option<Value> {
    let (topic, subscription, new) = match whose {
        Own => ("own-t", "own-s", "own-new"),
        Foreign => ("foreign-t", "foreign-s", "foreign-new"),
    };
    let body = match (route.method, route.path) {
        ("GET" | "DELETE", _) => return None,
        ("POST", "/topics") => json!({"id": new}),
        ("PATCH", "/topics/{id}") => json!({"message_retention_seconds": null}),
        ("POST", "/topics/{id}/messages") => json!([{}]),
        ("POST", "/topics/{id}/publish") => json!({"messages": [{"payload": {}}]}),
        ("POST", "/subscriptions") => json!({"id": new, "topic_id": topic}),
        ("PATCH", "/subscriptions/{id}") => json!({"max_delivery_attempts": 5}),
        ("POST", "/subscriptions/{id}/filter-preview") => json!({"filter": {}}),
        ("POST", "/subscriptions/{id}/seek") => json!({"to": "end"}),
        ("POST", "/snapshots") => json!({"id": "new", "subscription_id": subscription}),
        (
            "POST",
            "/subscriptions/{id}/acks"
            | "/subscriptions/{id}/nacks"
            | "/subscriptions/{id}/dlq/reprocess",
        ) => json!([]),
        ("POST", "/subscriptions/{id}/pull") => json!({"consumer_id": "c"}),
        ("POST", "/subscriptions/{id}/settle") => json!({"acks": []}),
        ("POST", "/subscriptions/{id}/parked/resume") => {
            json!({"message_ids": [], "action": "retry"})
        }
        ("POST", "/transactions") => json!({
            "acks": [{"subscription_id": subscription,
                "receipt": fastpubsub::doors::receipts::receipt(uuid::Uuid::now_v7(), 7)}],
            "publishes": [{"topic_id": topic, "messages": [{"payload": {}}]}]}),
        ("POST" | "PUT", "/clients" | "/clients/{id}") => json!({"name": "n", "scopes": "*"}),
        (
            "POST",
            "/clients/{id}/credentials"
            | "/subscriptions/{id}/push/secret"
            | "/subscriptions/{id}/push/test",
        ) => json!({}),
        (method, path) => panic!("what is a body of {method} {path}?"),
    };
    Some(body)
}

fn kind(resource: &str, action: &str) -> Object {
    let known = |known: &&fastpubsub::auth::scopes::Action| {
        (known.resource, known.action) == (resource, action)
    };
    ACTIONS.iter().find(known).unwrap().object
}

/// An object of a scope, and a beginning of it that no foreign one has; none where there is no object.
fn own_object(need: &Need) -> Option<(&'static str, &'static str)> {
    match (kind(need.resource, need.action), need.object) {
        // a queue is of another door
        (Object::None | Object::Queue, _) => None,
        (Object::Topic, Place::Body("id")) | (Object::Subscription, Place::Body("id")) => {
            Some(("own-new", "own*"))
        }
        (Object::Topic, _) => Some(("own-t", "own-*")),
        (Object::Subscription, _) => Some(("own-s", "own-s*")),
        (Object::Client, _) => Some((OWN_CLIENT, "0189aaaa-*")),
    }
}

/// The scopes that a route needs beside one of them. A client that another one manages has none that
/// the caller's token must cover; the scopes it gets here are.
fn rest(route: &Route, but: &Need) -> String {
    let others = route
        .needs
        .iter()
        .map(|need| (need.resource, need.action))
        .filter(|scope| *scope != (but.resource, but.action));
    others
        .chain(route.beside.iter().map(|beside| beside.scope))
        .map(|(resource, action)| format!(" {resource}:{action}"))
        .collect()
}

/// A body of nothing that a client could grant.
fn is_granting(route: &Route) -> bool {
    matches!(route.path, "/clients" | "/clients/{id}") && matches!(route.method, "POST" | "PUT")
}

/// Whether the scopes let the request through, whatever became of it then.
fn is_through(answer: &Answer, route: &Route) -> bool {
    // the scopes of a new client are looked at behind the caller's own
    let granting = is_granting(route) && answer.body.contains("* is more than your own");
    // whether it has one is looked at behind the scope, too
    let unset = answer
        .body
        .contains("The subscription has no push endpoint");
    granting || unset || !matches!(answer.status, 401 | 403 | 404)
}

#[test]
fn the_table_has_every_route_that_the_document_protects() {
    let document = serde_json::to_value(fastpubsub::doors::native::document()).unwrap();

    let mut documented = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let scopes: Vec<&str> = operation["security"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|way| way["oauth2"].as_array())
                .flatten()
                .map(|scope| scope.as_str().unwrap())
                .collect();
            if scopes.is_empty() {
                let open = ["/oauth/token", "/liveness", "/readiness", "/metrics"];
                assert!(open.contains(&path.as_str()), "{method} {path}");
            } else {
                documented.insert(format!("{} {path} {scopes:?}", method.to_uppercase()));
            }
        }
    }

    let table: BTreeSet<String> = ROUTES
        .iter()
        .map(|route| {
            let scopes: Vec<String> = route
                .needs
                .iter()
                .map(|need| format!("{}:{}", need.resource, need.action))
                .collect();
            format!("{} {} {scopes:?}", route.method, route.path)
        })
        .collect();
    assert_eq!(table, documented);
}

#[test]
fn the_table_and_the_list_of_scopes_are_those_of_the_document_for_people() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scopes.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once("| route | scope | its").unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    let written = format!("{before}{}\n{after}", markdown());
    if std::env::var("BLESS").is_ok_and(|bless| bless == "1") {
        std::fs::write(&path, &written).unwrap();
    }
    assert!(
        written == document,
        "docs/scopes.md has another table; if this one is meant: BLESS=1 cargo test table"
    );
    for action in ACTIONS {
        let row = format!("| `{}:{}` |", action.resource, action.action);
        assert!(document.contains(&row), "{row}");
    }
}

#[tokio::test]
async fn every_route_takes_each_kind_of_its_scopes_and_no_other() {
    let tried = Tried::start().await;
    let (mut taken, mut refused) = (0, 0);

    for route in ROUTES {
        for need in route.needs {
            let scope = format!("{}:{}", need.resource, need.action);
            let rest = rest(route, need);
            let (own, beginning) = own_object(need).unzip();
            let on = |object: Option<&str>| object.map(|object| format!("{scope}:{object}"));
            let nearly = own.map(|own| &own[..own.len() - 1]);
            let any = own.map(|_| "*");
            // which scope, for whose thing, and whether it is the right one; none where it has no object
            let cases = [
                (Some("*".to_owned()), Own, true),
                (Some("*".to_owned()), Foreign, true),
                (Some(scope.clone()), Own, true),
                (Some(scope.clone()), Foreign, true),
                (on(own), Own, true),
                (on(own), Foreign, false),
                (on(beginning), Own, true),
                (on(beginning), Foreign, false),
                (on(any), Own, true),
                (on(any), Foreign, true),
                (on(nearly), Own, false),
                (Some(String::new()), Own, false),
                (Some(wrong_action(need)), Own, false),
                (Some(format!("{scope}s")), Own, false),
            ];
            for (given, whose, is_right) in cases {
                let Some(given) = given else { continue };
                let scopes = format!("{given}{rest}");
                let answer = tried.call(route, whose, &scopes).await;

                let case = format!(
                    "{scopes:?} to {} {} of {whose:?}: {} {}",
                    route.method, route.path, answer.status, answer.body
                );
                let has_some = validate(&given).is_ok()
                    && (given == "*" || given == scope || given.starts_with(&format!("{scope}:")));
                if need.object == Place::Each && has_some {
                    assert_eq!(answer.status, 200, "{case}");
                    assert_eq!(shows(&answer, whose), is_right, "{case}");
                } else {
                    assert_eq!(is_through(&answer, route), is_right, "{case}");
                }
                if !has_some || !is_right && matches!(need.object, Place::Path | Place::Body(_)) {
                    assert_eq!(answer.status, 403, "{case}");
                    assert_eq!(
                        answer.json(),
                        json!({"detail": "Insufficient scope"}),
                        "{case}"
                    );
                }
                *if is_right { &mut taken } else { &mut refused } += 1;
            }
        }
    }

    assert!(taken > 200 && refused > 150, "{taken} {refused}");
}

/// Another action on the same thing.
fn wrong_action(need: &Need) -> String {
    let other = ACTIONS
        .iter()
        .find(|other| other.resource == need.resource && other.action != need.action)
        .unwrap();
    format!("{}:{}", other.resource, other.action)
}

/// Whether a list shows the things of one of us.
fn shows(answer: &Answer, whose: Whose) -> bool {
    let ids = match whose {
        Own => ["own-t", "own-s", OWN_CLIENT],
        Foreign => ["foreign-t", "foreign-s", FOREIGN_CLIENT],
    };
    ids.iter()
        .any(|id| answer.body.contains(&format!("\"{id}\"")))
}

#[tokio::test]
async fn what_belongs_to_a_foreign_subscription_is_as_if_it_were_not_there() {
    let tried = Tried::start().await;
    let unknown = uuid::Uuid::now_v7().to_string();

    for route in ROUTES {
        let Some(need) = route.needs.iter().find(|need| need.object == Place::Owner) else {
            continue;
        };
        let scopes = format!("{}:{}:own-s", need.resource, need.action);
        let foreign = tried.call(route, Foreign, &scopes).await;
        let path = route.path.replace("{id}", &unknown);
        let mut claims = claims(&tried.client);
        claims["scope"] = json!(scopes);
        let request = tried.app.request(route.method, &path);
        let request = request.bearer_auth(sign(HS256, SECRET_KEY, &claims));
        let unknown = answer(request).await.expect(404);

        assert_eq!(foreign.status, 404, "{} {}", route.method, route.path);
        assert_eq!(
            foreign.body, unknown.body,
            "{} {}",
            route.method, route.path
        );
    }
}
