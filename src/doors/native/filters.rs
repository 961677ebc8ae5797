//! Filters in request bodies. What a filter may look like inside, the SQL functions decide: their
//! refusal names the place.

use serde_json::value::RawValue;

use crate::db::storable::stored_size;
use crate::doors::fields::Fields;
use crate::error::{Form, Rule};

/// Note what keeps the field `filter` from being sent to Postgres.
pub fn check(fields: &mut Fields<'_>, raw: Option<&RawValue>) {
    let Some(filter) = fields.optional("filter") else {
        return;
    };
    if !filter.is_object() {
        fields.refuse("filter", Rule::Is(Form::Object));
    } else if let Some(Err(reason)) = raw.map(|raw| stored_size(raw.get())) {
        fields.refuse_as("filter", format!("{reason}, so no message can match"));
    }
}
