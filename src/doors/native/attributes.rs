//! The attributes of a message, as every answer shows them.

use serde::{Serialize, Serializer};
use serde_json::Map;

use crate::db::json::JsonText;

/// As they were published; an empty object when there are none.
pub struct Attributes(pub Option<JsonText>);

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(attributes) => attributes.serialize(serializer),
            None => Map::new().serialize(serializer),
        }
    }
}
