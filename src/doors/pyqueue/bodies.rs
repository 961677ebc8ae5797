//! Bodies that hold a message: `{"id"?, "message_body"}`, or `message` as older clients call it. Whatever
//! else there is in them is ignored, as PyQueue Server does.

use axum::body::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::config::pyqueue::PyqueueSettings;
use crate::db::json::JsonText;
use crate::doors::fields::Fields;
use crate::doors::{given, tree};
use crate::error::{Error, Fault, Form, Rule};

/// Most characters of the id of a message.
pub(super) const ID_MAX_LENGTH: usize = 256;
const BODY: &str = "message_body";

/// A message to add, or what is to become of one.
#[derive(Debug)]
pub(super) struct Sent {
    /// Its id; a new one where the client chose none.
    pub(super) id: String,
    /// What it holds, an object.
    pub(super) payload: JsonText,
}

/// Read a body.
///
/// # Errors
/// 422 with all faults, 413 for a message that is too large.
pub(super) fn parse(body: &Bytes, settings: &PyqueueSettings) -> Result<Sent, Error> {
    let fields = tree::object(body).map_err(|_| tree::not_a(Form::Fields, body))?;
    let mut faults = Vec::new();
    let id = match fields.get("id") {
        None => None,
        Some(id) => id_of(id).unwrap_or_else(|wrong| {
            faults.extend(wrong);
            None
        }),
    };
    let given = [BODY, "message"].into_iter().find_map(|name| {
        let text = fields.get(name).filter(|text| text.get() != "null")?;
        Some((name, *text))
    });
    let payload = match given {
        None => Err(Fault::body(vec![BODY.into()], Rule::Required, Value::Null)),
        Some((name, text)) => payload(body, text, name),
    };
    let payload = payload.map_err(|fault| faults.push(fault)).ok();
    match payload {
        Some(payload) if faults.is_empty() => {
            check_size(&payload, settings.max_message_size)?;
            Ok(Sent {
                id: id.unwrap_or_else(|| Uuid::new_v4().to_string()),
                payload,
            })
        }
        _ => Err(Error::Invalid(faults)),
    }
}

/// The id of a body, where it is not null; or what is wrong with it.
fn id_of(text: &RawValue) -> Result<Option<String>, Vec<Fault>> {
    let body = json!({ "id": given::json(text.get()) });
    let parsed = Fields::of_body(&body).and_then(|mut fields| {
        let is_given = fields.optional("id").is_some();
        let id = is_given.then(|| fields.text("id", 1, ID_MAX_LENGTH));
        fields.finish().map(|()| id)
    });
    parsed.map_err(|error| match error {
        Error::Invalid(faults) => faults,
        _ => Vec::new(),
    })
}

/// What a message holds: an object, or a text, which becomes the field `content` of one.
fn payload(body: &Bytes, text: &RawValue, name: &'static str) -> Result<JsonText, Fault> {
    let read = match text.get().as_bytes().first() {
        Some(b'{') => JsonText::part_of(body, text),
        Some(b'"') => {
            let object = Bytes::from(format!("{{\"content\":{}}}", text.get()));
            match serde_json::from_slice::<&RawValue>(&object) {
                Ok(text) => JsonText::part_of(&object, text),
                Err(_) => Err("it is no text"),
            }
        }
        _ => {
            let given = given::json(text.get());
            return Err(Fault::body(
                vec![name.into()],
                Rule::Is(Form::Object),
                given,
            ));
        }
    };
    read.map_err(|reason| {
        Fault::body(
            vec![name.into()],
            Rule::Refused(reason.to_owned()),
            Value::Null,
        )
    })
}

fn check_size(payload: &JsonText, most: usize) -> Result<(), Error> {
    let bytes = payload.size();
    if bytes <= most {
        return Ok(());
    }
    let text = format!(
        "the message has {bytes} bytes, the limit is {most} (FASTPUBSUB_PYQUEUE_MAX_MESSAGE_SIZE)"
    );
    Err(Error::refused(413, text))
}
