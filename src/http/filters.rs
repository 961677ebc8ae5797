//! Filters in request bodies. What a filter may look like inside, the SQL functions decide: their
//! refusal names the place.

use serde_json::json;
use serde_json::value::RawValue;

use super::payload::unstorable;
use super::validation::Fields;

/// Note what keeps the field `filter` from being sent to Postgres.
pub fn check(fields: &mut Fields<'_>, raw: Option<&RawValue>) {
    let Some(filter) = fields.optional("filter") else {
        return;
    };
    if !filter.is_object() {
        let msg = "Input should be a valid dictionary";
        fields.refuse("filter", "dict_type", msg, None);
    } else if let Some(reason) = raw.and_then(|raw| unstorable(raw.get())) {
        let msg = format!("Value error, {reason}, so no message can match");
        fields.refuse("filter", "value_error", &msg, Some(json!({"error": {}})));
    }
}
