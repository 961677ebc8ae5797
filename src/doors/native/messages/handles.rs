//! Lists of message ids or receipts, as acks, nacks and the reprocessing of dead letters take them.

use serde_json::Value;

use crate::db::messages::Handle;
use crate::doors::given;
use crate::doors::receipts::parse_handle;
use crate::error::{Error, Fault, Form, MAX_FAULTS, Rule};

/// The deliveries that a list of message ids or receipts names.
///
/// # Errors
/// 422 naming what is neither.
pub fn handles(body: &Value) -> Result<Vec<Handle>, Error> {
    let Some(values) = body.as_array() else {
        let fault = Fault::body(Vec::new(), Rule::Is(Form::List), given::value(body));
        return Err(Error::Invalid(vec![fault]));
    };
    let mut faults = Vec::new();
    let mut handles = Vec::with_capacity(values.len());
    for (position, value) in values.iter().enumerate() {
        if faults.len() == MAX_FAULTS {
            break;
        }
        let rule = match value.as_str().map(parse_handle) {
            Some(Ok(handle)) => {
                handles.push(handle);
                continue;
            }
            Some(Err(error)) => Rule::Reads(Form::Uuid, Some(error.to_string())),
            None => Rule::Is(Form::Uuid),
        };
        faults.push(Fault::body(
            vec![position.into()],
            rule,
            given::value(value),
        ));
    }
    if faults.is_empty() {
        Ok(handles)
    } else {
        Err(Error::Invalid(faults))
    }
}
