//! The types of settings, and how their text is read.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;

/// A value that must not be shown: its `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

/// Lowest level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Lifecycle and one line per request.
    Info,
    /// What may need attention.
    Warning,
    /// What needs attention.
    Error,
    /// As error; kept for the Python original.
    Critical,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// `key=value` pairs.
    Logfmt,
    /// For reading in a terminal.
    Text,
    /// A Python format string was given: `logfmt`, with a warning.
    Python,
}

/// Signature algorithm of access tokens (RFC 7518, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

/// Where web pages come from that may call the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// From anywhere.
    Any,
    /// From these, as browsers write them: `scheme://host[:port]`.
    These(Vec<String>),
}

pub(crate) fn origins(value: &str) -> Result<Origins, String> {
    if value.trim() == "*" {
        return Ok(Origins::Any);
    }
    let names = value.split(',').map(str::trim);
    let origins: Vec<String> = names.map(str::to_ascii_lowercase).collect();
    let is_origin = |origin: &String| {
        origin.split_once("://").is_some_and(|(scheme, host)| {
            let plain = |c: char| c.is_ascii_graphic() && !"/?#@*,".contains(c);
            !scheme.is_empty()
                && scheme.chars().all(|c| c.is_ascii_alphanumeric())
                && !host.is_empty()
                && host.chars().all(plain)
        })
    };
    if origins.iter().all(is_origin) {
        return Ok(Origins::These(origins));
    }
    Err("must be * or origins such as https://app.example.com, separated by commas".to_owned())
}

pub(crate) fn integer<T: TryFrom<i64>, const MIN: i64, const MAX: i64>(
    value: &str,
) -> Result<T, String> {
    let error = || format!("must be a whole number from {MIN} to {MAX}");
    let number = value.trim().parse::<i64>().map_err(|_| error())?;
    if !(MIN..=MAX).contains(&number) {
        return Err(error());
    }
    T::try_from(number).map_err(|_| error())
}

pub(crate) fn boolean(value: &str) -> Result<bool, String> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" | "y" => Ok(true),
        "false" | "0" | "no" | "off" | "f" | "n" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

pub(crate) fn ip_address(value: &str) -> Result<IpAddr, String> {
    value
        .parse()
        .map_err(|_| "must be an IP address, such as 127.0.0.1 or ::".to_owned())
}

pub(crate) fn socket_address(value: &str) -> Result<SocketAddr, String> {
    let address = match value.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}").parse(),
        None => value.parse(),
    };
    address.map_err(|_| "must be an address and a port, such as 0.0.0.0:8001".to_owned())
}

/// The end of the names of dead-letter queues.
pub(crate) fn dead_letter_suffix(value: &str) -> Result<String, String> {
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
    if (1..=32).contains(&value.chars().count()) && value.chars().all(fits) {
        return Ok(value.to_owned());
    }
    Err(
        "must be 1 to 32 characters without space, control characters or /, such as .DLQ"
            .to_owned(),
    )
}

/// A path that others are put behind.
pub(crate) fn path_prefix(value: &str) -> Result<String, String> {
    let path = value.trim_end_matches('/');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    if path.starts_with('/') && path.chars().all(is_plain) && !path.contains("//") {
        return Ok(path.to_owned());
    }
    Err("must be a path such as /api/v1".to_owned())
}

pub(crate) fn secret(value: &str) -> Result<Secret, String> {
    if value.is_empty() {
        return Err("must not be empty; fastpubsub generate_secret_key makes one".to_owned());
    }
    Ok(Secret(value.to_owned()))
}

pub(crate) fn log_format(value: &str) -> Result<LogFormat, String> {
    match value {
        "json" => Ok(LogFormat::Json),
        "logfmt" => Ok(LogFormat::Logfmt),
        "text" => Ok(LogFormat::Text),
        python if python.contains("%(") => Ok(LogFormat::Python),
        _ => Err("must be json, logfmt or text".to_owned()),
    }
}
