//! Receipts: the text that names one delivery of a message.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::db::messages::Handle;

/// Tells a receipt from a UUID without dashes.
const PREFIX: char = 'r';

/// Message id and lease number, URL-safe.
#[must_use]
pub fn receipt(message_id: Uuid, lease: i64) -> String {
    let mut bytes = message_id.as_bytes().to_vec();
    bytes.extend(lease.to_be_bytes());
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// The delivery that a receipt names.
#[must_use]
pub fn parse(text: &str) -> Option<(Uuid, i64)> {
    let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
    let (message_id, lease) = bytes.split_first_chunk::<16>()?;
    let lease = i64::from_be_bytes(lease.try_into().ok()?);
    Some((Uuid::from_bytes(*message_id), lease))
}

/// The delivery that a receipt or a message id names.
///
/// # Errors
/// When it is neither.
pub fn parse_handle(text: &str) -> Result<Handle, uuid::Error> {
    if let Some((message_id, lease)) = parse(text) {
        let lease = Some(lease);
        return Ok(Handle { message_id, lease });
    }
    Uuid::parse_str(text).map(|message_id| Handle {
        message_id,
        lease: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_names_its_message_and_lease() {
        let handle = Handle {
            message_id: Uuid::now_v7(),
            lease: Some(-7),
        };

        let receipt = receipt(handle.message_id, -7);

        assert_eq!(parse_handle(&receipt), Ok(handle));
        assert!(
            receipt
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        );
    }

    #[test]
    fn ids_are_taken_with_and_without_dashes() {
        let message_id = Uuid::now_v7();
        let handle = Handle {
            message_id,
            lease: None,
        };
        assert_eq!(parse_handle(&message_id.to_string()), Ok(handle));
        assert_eq!(parse_handle(&message_id.simple().to_string()), Ok(handle));
        assert!(parse_handle("rubbish").is_err());
    }
}
