//! Pulling messages, one at a time.

use std::time::Duration;

use axum::extract::{Extension, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};
use utoipa::{IntoParams, ToSchema};

use super::auth::Caller;
use super::caller::Allowed;
use super::names::{self, Kind};
use super::openapi::{Errors, NotFound, TooLarge};
use super::subscriptions;
use super::view::{self, Pulled};
use crate::app::App;
use crate::auth::scopes::BrokerConsume;
use crate::db::messages::Claim;
use crate::doors::answers;
use crate::doors::connection::Guest;
use crate::doors::extract::{OptionalJsonBody, QueryValues};
use crate::doors::fields::{Fields, TEXT_MAX_LENGTH};
use crate::engine::{Claimed, Engine};
use crate::error::{Error, found};
use crate::telemetry::doors::count;

/// Longest wait for a message, in seconds.
const WAIT_MAX_SECONDS: f64 = 30.0;
/// Who pulls: callers have no names.
pub(super) const CONSUMER: &str = "broker";
/// Between two looks whether a topic without subscriptions has any by now.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How to pull, which may all stand in the query, too.
#[derive(Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
pub(super) struct PullRequest {
    /// How long to wait for a message, in seconds.
    #[schema(minimum = 0, maximum = 30, default = 0)]
    #[param(minimum = 0, maximum = 30, default = 0)]
    wait_seconds: Option<f64>,
    /// Ack the message at once: it is gone, also if the answer is lost.
    #[schema(default = false)]
    #[param(default = false)]
    auto_ack: Option<bool>,
}

/// How to pull from a topic, which may all stand in the query, too.
#[derive(Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
pub(super) struct TopicPullRequest {
    /// Of which subscription; without it, of the topic's subscriptions in turn.
    subscription_id: Option<String>,
    /// How long to wait for a message, in seconds.
    #[schema(minimum = 0, maximum = 30, default = 0)]
    #[param(minimum = 0, maximum = 30, default = 0)]
    wait_seconds: Option<f64>,
    /// Ack the message at once: it is gone, also if the answer is lost.
    #[schema(default = false)]
    #[param(default = false)]
    auto_ack: Option<bool>,
}

/// What a body or query asks for.
struct Asked {
    wait: Duration,
    auto_ack: bool,
    subscription_id: Option<String>,
}

impl Asked {
    /// What the body says counts before the query.
    fn parse(body: &Value, query: &Map<String, Value>, of_topic: bool) -> Result<Self, Error> {
        let mut body = Fields::of_body(body)?;
        let mut query = Fields::of_query(query);
        let mut from = |name| body.optional(name).is_some();
        let (wait_in, ack_in) = (from("wait_seconds"), from("auto_ack"));
        let id_in = of_topic && from("subscription_id");
        let fields = if wait_in { &mut body } else { &mut query };
        let wait = fields.number("wait_seconds", 0.0, 0.0, WAIT_MAX_SECONDS);
        let fields = if ack_in { &mut body } else { &mut query };
        let auto_ack = fields.boolean("auto_ack").unwrap_or(false);
        let fields = if id_in { &mut body } else { &mut query };
        let subscription_id = of_topic
            .then(|| fields.optional("subscription_id"))
            .flatten()
            .map(|_| fields.text("subscription_id", 1, TEXT_MAX_LENGTH));
        body.finish()?;
        query.finish()?;
        Ok(Self {
            wait: Duration::from_secs_f64(wait),
            auto_ack,
            subscription_id,
        })
    }

    fn claim(&self, app: &App) -> Claim {
        let seconds = app.settings.broker.visibility_timeout_sec;
        Claim {
            consumer_id: CONSUMER.to_owned(),
            batch_size: 1,
            ack_deadline_seconds: (!self.auto_ack).then_some(seconds),
            only: None,
            auto_ack: self.auto_ack,
        }
    }
}

/// Pull a message from a queue: nobody else gets it until the visibility timeout is over
#[utoipa::path(post, path = "/queues/{name}/pull", tag = "queues",
    params(("name" = String, Path), PullRequest), request_body = Option<PullRequest>,
    responses((status = 200, body = Pulled), NotFound, TooLarge, Errors))]
pub(super) async fn pull_from_queue(
    Allowed { name, caller, .. }: Allowed<BrokerConsume>,
    State(app): State<App>,
    QueryValues(query): QueryValues,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Error> {
    let asked = Asked::parse(&body, &query, false)?;
    let id = Kind::Queue.id(&name);
    let allowed = || caller.check::<BrokerConsume>(&app, &name);
    let pull = app
        .engine
        .pull(id.clone(), asked.claim(&app), asked.wait, allowed);
    let claimed = Kind::Queue.known(&name, pull.await)?;
    answer(Kind::Queue, &name, &id, claimed, asked.auto_ack)
}

/// Pull a message from a topic: from a subscription, or from all of them in turn
#[utoipa::path(post, path = "/topics/{name}/pull", tag = "topics",
    params(("name" = String, Path), TopicPullRequest), request_body = Option<TopicPullRequest>,
    responses((status = 200, body = Pulled), NotFound, TooLarge, Errors))]
pub(super) async fn pull_from_topic(
    Allowed { name, caller, .. }: Allowed<BrokerConsume>,
    State(app): State<App>,
    Extension(guest): Extension<Guest>,
    QueryValues(query): QueryValues,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Error> {
    let asked = Asked::parse(&body, &query, true)?;
    let Some(subscription_id) = &asked.subscription_id else {
        let claim = asked.claim(&app);
        let of = (name.as_str(), &caller, |_: &[String]| {});
        let claimed = pull_from_all((&app, &app.engine), &guest, of, &claim, asked.wait).await?;
        return answer(Kind::Topic, &name, "", claimed, asked.auto_ack);
    };
    let id = names::subscription(&name, subscription_id);
    let allowed = || caller.check::<BrokerConsume>(&app, &name);
    let pull = app
        .engine
        .pull(id.clone(), asked.claim(&app), asked.wait, allowed);
    let claimed = found(pull.await)?;
    let claimed = claimed.ok_or_else(|| subscriptions::unknown(&name, subscription_id))?;
    answer(Kind::Topic, &name, &id, claimed, asked.auto_ack)
}

/// From whichever subscriptions a topic has, and gets meanwhile; each time it is noted which.
pub(super) async fn pull_from_all(
    (app, engine): (&App, &Engine),
    guest: &Guest,
    (topic, caller, note): (&str, &Caller, impl Fn(&[String])),
    claim: &Claim,
    wait: Duration,
) -> Result<Claimed, Error> {
    let until = Instant::now() + wait;
    loop {
        let ids = subscriptions::ids(app, topic).await?;
        note(&ids);
        let left = until.saturating_duration_since(Instant::now());
        if ids.is_empty() {
            if left.is_zero() {
                return Ok(Claimed::default());
            }
            tokio::select! {
                () = sleep(left.min(LOOK_AGAIN)) => {}
                () = guest.drained() => return Ok(Claimed::default()),
            }
            continue;
        }
        let allowed = || caller.check::<BrokerConsume>(app, topic);
        let pull = engine.pull_from(ids, claim.clone(), left, allowed);
        // none where one of them was deleted meanwhile
        if let Some(claimed) = found(pull.await)? {
            return Ok(claimed);
        }
    }
}

/// What was pulled, if anything.
fn answer(
    kind: Kind,
    name: &str,
    id: &str,
    claimed: Claimed,
    acked: bool,
) -> Result<Response, Error> {
    let Claimed {
        deliveries, share, ..
    } = claimed;
    let Some(delivery) = deliveries.into_iter().next() else {
        return answers::one(&Pulled::nothing(), None);
    };
    note_delivered(&view::label(kind, name), delivery.attempts, acked);
    let id = delivery
        .subscription_id
        .clone()
        .unwrap_or_else(|| id.to_owned());
    answers::one(&Pulled::of(&id, delivery), share)
}

/// Count a delivery, the how manieth of its message it is.
pub(super) fn note_delivered(label: &str, attempts: i32, acked: bool) {
    count("broker_messages_delivered_total", label, 1);
    count("broker_retries_total", label, usize::from(attempts > 1));
    count("broker_messages_acked_total", label, usize::from(acked));
}
