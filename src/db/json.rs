//! JSON texts on their way to and from Postgres, which are never taken apart here.

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::types::Json;
use sqlx::{Decode, Encode, Postgres, Type};

/// What Postgres puts before a jsonb in binary format: the version of the format.
const JSONB_VERSION: u8 = 1;

/// A valid JSON text, of type jsonb in Postgres. Cheap to clone.
#[derive(Clone, Debug)]
pub struct JsonText(Bytes);

impl JsonText {
    /// For a text that is part of `body`, without copying it.
    #[must_use]
    pub fn part_of(body: &Bytes, text: &RawValue) -> Self {
        Self(body.slice_ref(text.get().as_bytes()))
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.len()
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
        buffer.extend_from_slice(&self.0);
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
        Ok(Self(Bytes::copy_from_slice(text)))
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: &RawValue = serde_json::from_slice(&self.0).map_err(serde::ser::Error::custom)?;
        text.serialize(serializer)
    }
}
