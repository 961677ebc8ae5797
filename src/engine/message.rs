//! What a message may be. The SQL functions hold everybody to the same limits, but for the size, which
//! is a setting of the server.

use crate::db::json::JsonText;
use crate::db::publish::Publication;
use crate::error::Error;

/// Longest delay and life of a message, in seconds: 365 days.
pub const MAX_SECONDS: i32 = 31_536_000;
/// Most attributes of a message.
pub const MAX_ATTRIBUTES: usize = 100;
/// Most characters of the name of an attribute.
pub const ATTRIBUTE_NAME_MAX_LENGTH: usize = 256;
/// Most characters of an attribute.
pub const ATTRIBUTE_MAX_LENGTH: usize = 1024;
/// Most characters of an ordering key.
pub const ORDERING_KEY_MAX_LENGTH: usize = 1024;
/// Most characters of an idempotency key.
pub const IDEMPOTENCY_KEY_MAX_LENGTH: usize = 256;
/// Most characters of a message key.
pub const MESSAGE_KEY_MAX_LENGTH: usize = 256;
/// The highest priority.
pub const MAX_PRIORITY: i32 = 9;

/// The limits that the settings say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most bytes of a payload, as Postgres prints it.
    pub(super) max_bytes: usize,
}

impl Limits {
    /// Whether messages may be published.
    ///
    /// # Errors
    /// 413 naming the first one that is too large by its position.
    pub(super) fn check(self, publication: &Publication) -> Result<(), Error> {
        for (position, payload) in publication.payloads.iter().enumerate() {
            self.check_payload(position, payload)?;
        }
        Ok(())
    }

    /// Whether the message of this position may have such a payload.
    ///
    /// # Errors
    /// 413 when it is too large.
    pub(super) fn check_payload(self, position: usize, payload: &JsonText) -> Result<(), Error> {
        let bytes = payload.size();
        if bytes <= self.max_bytes {
            return Ok(());
        }
        let message = format!(
            "message {position} has {bytes} bytes, the limit is {} (FASTPUBSUB_API_MAX_MESSAGE_BYTES)",
            self.max_bytes
        );
        Err(Error::refused(413, message))
    }
}
