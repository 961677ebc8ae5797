//! What a client says on a WebSocket, and what it is answered.

use serde::Serialize;
use serde_json::Value;

use crate::app::App;
use crate::db::messages::Handle;
use crate::db::settlements::Settlement;
use crate::doors::fastapi;
use crate::doors::fields::{Fields, TEXT_MAX_LENGTH};
use crate::doors::native::messages::settle::{self, SettleResult};
use crate::doors::receipts;
use crate::doors::stream::{Change, Reply};
use crate::doors::tree::parse_json;
use crate::error::Error;

/// Most messages that one frame allows to be sent.
pub(super) const MOST_CREDIT: i32 = 1_000_000;
/// What settles, and the list of `/settle` that it is.
const SETTLING: [(&str, &str); 4] = [
    ("ack", "acks"),
    ("nack", "nacks"),
    ("reject", "rejects"),
    ("extend", "extends"),
];
const TYPES: &str = "type must be ack, nack, reject, extend or credit";

/// A frame of a client.
enum Frame {
    Settle(Settlement),
    Credit(usize),
}

/// What it is answered.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Told<'a> {
    Result(SettleResult),
    #[serde(rename = "result")]
    Credited {
        status: &'static str,
        messages: usize,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        receipt: Option<&'a str>,
        #[serde(flatten)]
        error: Value,
    },
}

/// Do what a frame says.
pub(super) async fn reply(app: &App, id: &str, text: &str, has_credit: bool) -> Reply {
    let body = parse_json(text.as_bytes());
    let body = body.as_ref();
    let receipt = body.ok().and_then(|body| body.get("receipt")?.as_str());
    let done = match body
        .map_err(Clone::clone)
        .and_then(|body| parse(body, has_credit))
    {
        Ok(Frame::Credit(messages)) => {
            let status = "credited";
            Ok((
                Told::Credited { status, messages },
                Change::Credit(messages),
            ))
        }
        Ok(Frame::Settle(settlement)) => settle(app, id, settlement).await,
        Err(error) => Err(error),
    };
    let (told, change) = done.unwrap_or_else(|error| {
        let error = fastapi::body(&error);
        (Told::Error { receipt, error }, Change::Nothing)
    });
    Reply {
        // nothing in it can fail
        text: serde_json::to_string(&told).unwrap_or_default(),
        change,
    }
}

async fn settle<'a>(
    app: &App,
    id: &str,
    settlement: Settlement,
) -> Result<(Told<'a>, Change), Error> {
    let handle = Handle {
        message_id: settlement.message_id,
        lease: Some(settlement.lease),
    };
    let settled = settle::settle(app, id.to_owned(), vec![settlement]).await?;
    let result = settled.results.into_iter().next();
    let result = result.ok_or_else(|| Error::refused(404, "Delivery not found"))?;
    let change = if result.status == "extended" {
        Change::Nothing
    } else {
        Change::Settled(id.to_owned(), handle)
    };
    Ok((Told::Result(result), change))
}

fn parse(body: &Value, has_credit: bool) -> Result<Frame, Error> {
    let mut fields = Fields::of_body(body)?;
    let kind = fields.text("type", 0, TEXT_MAX_LENGTH);
    if kind == "credit" {
        fields.required("messages");
        let messages = fields.int("messages", 1, 1, MOST_CREDIT);
        if !has_credit {
            fields.refuse_as("type", "there is credit only where ?credit= was asked for");
        }
        fields.finish()?;
        return Ok(Frame::Credit(usize::try_from(messages).unwrap_or(1)));
    }
    let Some((_, list)) = SETTLING.iter().find(|(name, _)| *name == kind) else {
        if body.get("type").is_some_and(Value::is_string) {
            fields.refuse_as("type", TYPES);
        }
        fields.finish_ignoring_others()?;
        return Err(Error::refused(422, TYPES));
    };
    let receipt = fields.text("receipt", 0, TEXT_MAX_LENGTH);
    let named = receipts::parse(&receipt);
    if named.is_none() && body.get("receipt").is_some_and(Value::is_string) {
        fields.refuse_as("receipt", "not a receipt");
    }
    let action = settle::action(list, &mut fields);
    fields.finish()?;
    let (message_id, lease) = named.unwrap_or_default();
    Ok(Frame::Settle(Settlement {
        message_id,
        lease,
        action,
    }))
}
