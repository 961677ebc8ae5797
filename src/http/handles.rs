//! Lists of message ids or receipts, as acks, nacks and the reprocessing of dead letters take them.

use serde_json::{Value, json};

use super::receipts::parse_handle;
use super::validation::{fault, fault_with};
use crate::db::messages::Handle;
use crate::error::{Error, MAX_FAULTS};
use crate::given;

/// The deliveries that a list of message ids or receipts names.
///
/// # Errors
/// 422 naming what is neither.
pub fn handles(body: &Value) -> Result<Vec<Handle>, Error> {
    let Some(values) = body.as_array() else {
        let loc = vec![json!("body")];
        let fault = fault(
            "list_type",
            loc,
            "Input should be a valid list",
            given::value(body),
        );
        return Err(Error::Invalid(vec![fault]));
    };
    let mut faults = Vec::new();
    let mut handles = Vec::with_capacity(values.len());
    for (position, value) in values.iter().enumerate() {
        if faults.len() == MAX_FAULTS {
            break;
        }
        let loc = || vec![json!("body"), json!(position)];
        match value.as_str().map(parse_handle) {
            Some(Ok(handle)) => handles.push(handle),
            Some(Err(error)) => {
                let msg = format!("Input should be a valid UUID, {error}");
                let ctx = json!({"error": error.to_string()});
                faults.push(fault_with(
                    "uuid_parsing",
                    loc(),
                    &msg,
                    given::value(value),
                    ctx,
                ));
            }
            None => {
                let msg = "UUID input should be a string, bytes or UUID object";
                faults.push(fault("uuid_type", loc(), msg, given::value(value)));
            }
        }
    }
    if faults.is_empty() {
        Ok(handles)
    } else {
        Err(Error::Invalid(faults))
    }
}
