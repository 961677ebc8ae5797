//! `/subscriptions/{id}/settle`: ack, nack, reject and extend deliveries, each with its own result.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::scopes::SubscriptionsConsume;
use crate::db::Timestamp;
use crate::db::settlements::{Action, Settled, Settlement};
use crate::doors::body;
use crate::doors::caller::Caller;
use crate::doors::extract::{JsonBody, PathId};
use crate::doors::fields::{Fields, TEXT_MAX_LENGTH};
use crate::doors::given;
use crate::doors::native::openapi::{CommonErrors, NotFound, TooLarge};
use crate::doors::receipts;
use crate::error::{Count, Error, Fault, Form, MAX_FAULTS, Rule, Step};

/// Most deliveries of one request.
const MAX_DELIVERIES: usize = 1000;

/// What to settle, and how; at most 1000 deliveries in all.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"acks": ["rAZl8o1wufUmKaw9ffxwtPgAAAAAAAAAB"],
    "nacks": [], "rejects": [], "extends": []}))]
pub struct SettleRequest {
    /// Receipts of messages that are done.
    acks: Option<Vec<String>>,
    /// Messages to deliver again.
    nacks: Option<Vec<Nack>>,
    /// Messages that nobody can ever handle: they go to the dead letters at once.
    rejects: Option<Vec<Reject>>,
    /// Messages that take longer.
    extends: Option<Vec<Extend>>,
}

/// A message to deliver again.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"receipt": "rAZl8o1wufUmKaw9ffxwtPgAAAAAAAAAB", "delay_seconds": 30,
    "reason": "rate limited"}))]
pub struct Nack {
    /// Of its delivery.
    receipt: String,
    /// When, in seconds from now; by default after the backoff of the subscription.
    #[schema(minimum = 0, maximum = 43200)]
    delay_seconds: Option<i32>,
    /// Why, for people who look at its timeline or its dead letter.
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// A message for the dead letters.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"receipt": "rAZl8o1wufUmKaw9ffxwtPgAAAAAAAAAB", "reason": "no such user"}))]
pub struct Reject {
    /// Of its delivery.
    receipt: String,
    /// Why, for people who look at its dead letter.
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// A message that takes longer.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"receipt": "rAZl8o1wufUmKaw9ffxwtPgAAAAAAAAAB", "seconds": 60}))]
pub struct Extend {
    /// Of its delivery.
    receipt: String,
    /// How long from now on, in seconds; a lease ends 12 hours after the delivery at the latest.
    #[schema(minimum = 1, maximum = 43200)]
    seconds: i32,
}

/// What became of a delivery.
#[derive(Serialize, ToSchema)]
pub struct SettleResult {
    /// Of the delivery.
    receipt: String,
    /// `acked`, `nacked`, `dead_lettered`, `extended`, or `lease_lost`: it was settled before, or its
    /// lease ended. With ordering keys also `parked` or `skipped`.
    #[schema(example = "acked")]
    pub status: String,
    /// When the lease ends now, of a delivery that was extended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ack_deadline: Option<Timestamp>,
}

/// What became of the deliveries.
#[derive(Serialize, ToSchema)]
pub struct SettleResponse {
    /// First the acks, then nacks, rejects and extends, each in the order given.
    pub results: Vec<SettleResult>,
}

/// Settle deliveries: ack, nack, reject or extend each
///
/// All is done in one commit. A receipt that no longer fits is told in its result and changes nothing.
#[utoipa::path(post, path = "/subscriptions/{id}/settle", tag = "messages",
    params(("id" = String, Path)), request_body = SettleRequest,
    responses((status = 200, body = SettleResponse), NotFound, TooLarge, CommonErrors))]
pub async fn settle_messages(
    _: Caller<SubscriptionsConsume>,
    State(app): State<App>,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ body::LIST }>,
) -> Result<Json<SettleResponse>, Error> {
    let settlements = parse(&body)?;
    Ok(Json(settle(&app, id, settlements).await?))
}

/// Settle what a body asked for, and tell what became of it.
///
/// # Errors
/// Those of the engine.
pub async fn settle(
    app: &App,
    id: String,
    settlements: Vec<Settlement>,
) -> Result<SettleResponse, Error> {
    let receipt = |of: &Settlement| receipts::receipt(of.message_id, of.lease);
    let receipts: Vec<String> = settlements.iter().map(receipt).collect();
    let settled = app.engine.settle(id, settlements).await?;
    let result = |(receipt, settled): (String, Settled)| SettleResult {
        receipt,
        status: settled.status,
        ack_deadline: settled.ack_deadline,
    };
    Ok(SettleResponse {
        results: receipts.into_iter().zip(settled).map(result).collect(),
    })
}

/// The settlements of a body, and what is wrong with it.
#[derive(Default)]
struct Parsed {
    settlements: Vec<Settlement>,
    named: HashSet<(uuid::Uuid, i64)>,
    faults: Vec<Fault>,
}

/// The settlements of a body.
///
/// # Errors
/// All that is wrong with it.
pub fn parse(body: &Value) -> Result<Vec<Settlement>, Error> {
    const LISTS: [&str; 4] = ["acks", "nacks", "rejects", "extends"];
    let mut fields = Fields::of_body(body)?;
    fields.know(&LISTS);
    fields.finish()?;
    let items = |list: &str| body.get(list).and_then(Value::as_array).map_or(0, Vec::len);
    let count: usize = LISTS.iter().map(|list| items(list)).sum();
    if count > MAX_DELIVERIES {
        let rule = Rule::AtMost(Count::Deliveries, MAX_DELIVERIES, Some(count));
        return Err(Error::fault(Vec::new(), rule));
    }
    let mut parsed = Parsed::default();
    for list in LISTS {
        parsed.list(body, list);
    }
    if parsed.faults.is_empty() {
        Ok(parsed.settlements)
    } else {
        parsed.faults.truncate(MAX_FAULTS);
        Err(Error::Invalid(parsed.faults))
    }
}

impl Parsed {
    fn list(&mut self, body: &Value, list: &'static str) {
        let items = match body.get(list) {
            None | Some(Value::Null) => return,
            Some(Value::Array(items)) => items,
            Some(other) => {
                let rule = Rule::Is(Form::List);
                let fault = Fault::body(vec![list.into()], rule, given::value(other));
                self.faults.push(fault);
                return;
            }
        };
        for (position, item) in items.iter().enumerate() {
            if self.faults.len() >= MAX_FAULTS {
                break;
            }
            let mut path: Vec<Step> = vec![list.into(), position.into()];
            if list == "acks" {
                self.add(path, item, Action::Ack);
                continue;
            }
            match fields_of(list, item) {
                Ok(action) => {
                    path.push("receipt".into());
                    let receipt = item.get("receipt").unwrap_or(&Value::Null);
                    self.add(path, receipt, action);
                }
                Err(Error::Invalid(faults)) => {
                    let inside = faults.into_iter().map(|fault| fault.within(&path));
                    self.faults.extend(inside);
                }
                // nothing else is refused there
                Err(_) => {}
            }
        }
    }

    fn add(&mut self, path: Vec<Step>, receipt: &Value, action: Action) {
        let Some(text) = receipt.as_str() else {
            let rule = Rule::Is(Form::Text);
            self.faults
                .push(Fault::body(path, rule, given::value(receipt)));
            return;
        };
        let refusal = match receipts::parse(text) {
            None => "not a receipt",
            Some(delivery) if !self.named.insert(delivery) => "the delivery is named twice",
            Some((message_id, lease)) => {
                self.settlements.push(Settlement {
                    message_id,
                    lease,
                    action,
                });
                return;
            }
        };
        let rule = Rule::Refused(refusal.to_owned());
        self.faults
            .push(Fault::body(path, rule, given::value(receipt)));
    }
}

/// What an item of a list asks for, but for its receipt.
fn fields_of(list: &str, item: &Value) -> Result<Action, Error> {
    let mut fields = Fields::of_body(item)?;
    fields.required("receipt");
    let action = action(list, &mut fields);
    fields.finish()?;
    Ok(action)
}

/// What the fields of an item of a list ask for.
pub fn action(list: &str, fields: &mut Fields<'_>) -> Action {
    match list {
        "acks" => Action::Ack,
        "nacks" => Action::Nack {
            seconds: fields
                .optional("delay_seconds")
                .map(|_| fields.int("delay_seconds", 0, 0, 43200).into()),
            reason: reason(fields),
        },
        "rejects" => Action::Reject {
            reason: reason(fields),
        },
        _ => {
            fields.required("seconds");
            Action::Extend {
                seconds: fields.int("seconds", 1, 1, 43200).into(),
            }
        }
    }
}

fn reason(fields: &mut Fields<'_>) -> Option<String> {
    fields
        .optional("reason")
        .map(|_| fields.text("reason", 0, TEXT_MAX_LENGTH))
}
