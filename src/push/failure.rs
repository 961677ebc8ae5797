//! Why a push failed, in the words that the timeline of its message has.

use std::fmt;
use std::time::Duration;

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It was not tried: the endpoint leads where it must not.
    Refused(String),
    /// Nobody knows the addresses of this name.
    Unknown(String),
    /// There was no connection.
    Unreachable(String),
    /// There was a connection, but none that is encrypted.
    Tls(String),
    /// What came is no answer.
    Broken(String),
    /// It took longer than this.
    Late(Duration),
    /// This server looks up as many names as it may.
    Busy,
}

impl Failure {
    /// For metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Unknown(_) | Self::Unreachable(_) | Self::Tls(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::Late(_) => "timeout",
            Self::Busy => "busy",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) => write!(f, "refused: {text}"),
            Self::Unknown(name) => write!(f, "the name {name} is not known"),
            Self::Unreachable(text) => f.write_str(text),
            Self::Tls(text) => write!(f, "TLS: {text}"),
            Self::Broken(text) => write!(f, "no answer: {text}"),
            Self::Late(limit) => write!(f, "timeout after {} s", limit.as_secs_f64()),
            Self::Busy => f.write_str("too many names are being looked up"),
        }
    }
}
