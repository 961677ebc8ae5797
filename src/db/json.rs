//! JSON texts on their way to and from Postgres, which are never taken apart here.

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::types::Json;
use sqlx::{Decode, Encode, Postgres, Type};

use super::storable::stored_size;

/// What Postgres puts before a jsonb in binary format: the version of the format.
const JSONB_VERSION: u8 = 1;

/// A JSON text that Postgres can store, of type jsonb. Cheap to clone.
#[derive(Clone, Debug)]
pub struct JsonText {
    text: Bytes,
    size: usize,
}

impl JsonText {
    /// For a text that is part of `body`, without copying it.
    ///
    /// # Errors
    /// Why Postgres cannot store it.
    pub fn part_of(body: &Bytes, text: &RawValue) -> Result<Self, &'static str> {
        Ok(Self {
            size: stored_size(text.get())?,
            text: body.slice_ref(text.get().as_bytes()),
        })
    }

    /// For a JSON text that we wrote.
    ///
    /// # Errors
    /// Why Postgres cannot store it.
    pub fn written(text: String) -> Result<Self, &'static str> {
        Ok(Self {
            size: stored_size(&text)?,
            text: text.into(),
        })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// How many bytes Postgres prints for it.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
}

impl Type<Postgres> for JsonText {
    fn type_info() -> PgTypeInfo {
        Json::<()>::type_info()
    }
}

impl PgHasArrayType for JsonText {
    fn array_type_info() -> PgTypeInfo {
        Json::<()>::array_type_info()
    }
}

impl Encode<'_, Postgres> for JsonText {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.push(JSONB_VERSION);
        buffer.extend_from_slice(&self.text);
        Ok(IsNull::No)
    }
}

impl<'r> Decode<'r, Postgres> for JsonText {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let bytes = value.as_bytes()?;
        let text = match value.format() {
            PgValueFormat::Text => bytes,
            PgValueFormat::Binary => bytes
                .strip_prefix(&[JSONB_VERSION])
                .ok_or("unknown jsonb format")?,
        };
        Ok(Self {
            text: Bytes::copy_from_slice(text),
            size: text.len(),
        })
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: &RawValue =
            serde_json::from_slice(&self.text).map_err(serde::ser::Error::custom)?;
        text.serialize(serializer)
    }
}
