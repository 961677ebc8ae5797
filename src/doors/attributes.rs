//! Attributes of messages that doors know by name.

use std::collections::HashMap;

use crate::db::json::JsonText;

/// What an attribute says, if there is any of this name.
#[must_use]
pub fn attribute(attributes: Option<&JsonText>, name: &str) -> Option<String> {
    let mut all: HashMap<String, String> = serde_json::from_str(attributes?.as_str()).ok()?;
    all.remove(name)
}
