//! Settings: flags, `FASTPUBSUB_*` variables and a `.env` file, in this order of precedence.
//!
//! `env.sample` lists the same names in the same order; a test compares them.

pub mod broker;
mod database;
pub mod drop_in;
pub mod pulsar;
pub mod push;
pub mod pyqueue;
mod values;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args};

use broker::BrokerSettings;
use database::database_url;
use drop_in::DropIn;
use pulsar::PulsarSettings;
use push::PushSettings;
use pyqueue::PyqueueSettings;
pub(crate) use values::boolean;
pub use values::{LogFormat, LogLevel, Origins, Secret, TokenAlgorithm};
use values::{integer, ip_address, log_format, origins, secret};

/// Every setting of the service.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Settings (flag, environment variable or .env file)")]
pub struct Settings {
    /// Database to use, such as postgresql://USER:PASSWORD@HOST:5432/DATABASE. Without it a private
    /// Postgres runs under the data directory, for trying out and development
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_DATABASE_URL",
        hide_env_values = true
    )]
    #[arg(value_name = "URL", value_parser = database_url)]
    pub database_url: Option<Secret>,

    /// Where the private Postgres keeps its data
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_DATA_DIR",
        hide_env_values = true
    )]
    #[arg(value_name = "DIR", default_value = "./data")]
    pub data_dir: PathBuf,

    /// Directory of initdb and postgres for the private Postgres; found by itself if not given
    #[arg(long, global = true, env = "FASTPUBSUB_PG_BIN", hide_env_values = true)]
    #[arg(value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,

    /// Log every SQL statement, without its values
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_DATABASE_ECHO",
        hide_env_values = true
    )]
    #[arg(value_name = "BOOL", default_value = "false", value_parser = boolean, action = ArgAction::Set)]
    pub database_echo: bool,

    /// Database connections, with the overflow: 1 to 1000
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_DATABASE_POOL_SIZE",
        hide_env_values = true
    )]
    #[arg(value_name = "N", default_value = "5", value_parser = integer::<u32, 1, 1000>)]
    pub database_pool_size: u32,

    /// Connections beyond the pool size: 0 to 1000
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_DATABASE_MAX_OVERFLOW",
        hide_env_values = true
    )]
    #[arg(value_name = "N", default_value = "10", value_parser = integer::<u32, 0, 1000>)]
    pub database_max_overflow: u32,

    /// Test a connection that was idle for a second before using it
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_DATABASE_POOL_PRE_PING",
        hide_env_values = true
    )]
    #[arg(value_name = "BOOL", default_value = "true", value_parser = boolean, action = ArgAction::Set)]
    pub database_pool_pre_ping: bool,

    /// Lowest level that is logged
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_LOG_LEVEL",
        hide_env_values = true
    )]
    #[arg(
        value_name = "LEVEL",
        default_value = "info",
        value_enum,
        ignore_case = true
    )]
    pub log_level: LogLevel,

    /// json, logfmt or text; a Python format string is taken as logfmt
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_LOG_FORMATTER",
        hide_env_values = true
    )]
    #[arg(value_name = "FORMAT", default_value = "logfmt", value_parser = log_format)]
    pub log_formatter: LogFormat,

    /// Deliveries of a message before it is dead-lettered, for subscriptions that do not say
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_SUBSCRIPTION_MAX_ATTEMPTS",
        hide_env_values = true
    )]
    #[arg(value_name = "N", default_value = "5", value_parser = integer::<i32, 1, 2_147_483_647>)]
    pub subscription_max_attempts: i32,

    /// First wait before a retry, in seconds, for subscriptions that do not say
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_SUBSCRIPTION_BACKOFF_MIN_SECONDS"
    )]
    #[arg(hide_env_values = true, value_name = "SECONDS", default_value = "5")]
    #[arg(value_parser = integer::<i32, 1, 2_147_483_647>)]
    pub subscription_backoff_min_seconds: i32,

    /// Longest wait before a retry, in seconds, for subscriptions that do not say
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_SUBSCRIPTION_BACKOFF_MAX_SECONDS"
    )]
    #[arg(hide_env_values = true, value_name = "SECONDS", default_value = "300")]
    #[arg(value_parser = integer::<i32, 1, 2_147_483_647>)]
    pub subscription_backoff_max_seconds: i32,

    /// Log at level debug
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_API_DEBUG",
        hide_env_values = true
    )]
    #[arg(value_name = "BOOL", default_value = "false", value_parser = boolean, action = ArgAction::Set)]
    pub api_debug: bool,

    /// Address to listen on
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_API_HOST",
        hide_env_values = true
    )]
    #[arg(value_name = "IP", default_value = "0.0.0.0", value_parser = ip_address)]
    pub api_host: IpAddr,

    /// Port to listen on; 0 takes a free one
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_API_PORT",
        hide_env_values = true
    )]
    #[arg(value_name = "PORT", default_value = "8000", value_parser = integer::<u16, 0, 65535>)]
    pub api_port: u16,

    /// Worker threads, 1 to 512; by default one per CPU core
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_API_NUM_WORKERS",
        hide_env_values = true
    )]
    #[arg(value_name = "N", value_parser = integer::<usize, 1, 512>)]
    pub api_num_workers: Option<usize>,

    /// Largest request body, in bytes
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_API_MAX_BODY_BYTES",
        hide_env_values = true
    )]
    #[arg(value_name = "BYTES", default_value = "10485760")]
    #[arg(value_parser = integer::<usize, 1024, 104_857_600>)]
    pub api_max_body_bytes: usize,

    /// Largest message payload, in bytes
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_API_MAX_MESSAGE_BYTES",
        hide_env_values = true
    )]
    #[arg(value_name = "BYTES", default_value = "1048576")]
    #[arg(value_parser = integer::<usize, 2, 104_857_600>)]
    pub api_max_message_bytes: usize,

    /// Most bytes of the messages in one answer; one message is always answered
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_API_MAX_ANSWER_BYTES",
        hide_env_values = true
    )]
    #[arg(value_name = "BYTES", default_value = "8388608")]
    #[arg(value_parser = integer::<usize, 1024, 104_857_600>)]
    pub api_max_answer_bytes: usize,

    /// Bytes of request bodies that are worked on at a time; others wait, and then get 503. The largest
    /// body always fits
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_API_MAX_BODY_BYTES_IN_FLIGHT",
        hide_env_values = true
    )]
    #[arg(value_name = "BYTES", default_value = "25165824")]
    #[arg(value_parser = integer::<usize, 1024, 17_179_869_184>)]
    pub api_max_body_bytes_in_flight: usize,

    /// Bytes of messages on the way to consumers at a time; others wait, and then get 503
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_API_MAX_ANSWER_BYTES_IN_FLIGHT",
        hide_env_values = true
    )]
    #[arg(value_name = "BYTES", default_value = "33554432")]
    #[arg(value_parser = integer::<usize, 1024, 17_179_869_184>)]
    pub api_max_answer_bytes_in_flight: usize,

    /// Connections of clients at a time; others are told to come back
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_API_MAX_CONNECTIONS",
        hide_env_values = true
    )]
    #[arg(value_name = "N", default_value = "10000", value_parser = integer::<usize, 1, 1_000_000>)]
    pub api_max_connections: usize,

    /// Origins of web pages that may call the API, such as https://app.example.com, separated by
    /// commas; * for all
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_API_CORS_ORIGINS",
        hide_env_values = true
    )]
    #[arg(value_name = "ORIGINS", value_parser = origins)]
    pub api_cors_origins: Option<Origins>,

    /// How long a stopping server waits for requests in flight, in seconds
    #[arg(long, global = true, env = "FASTPUBSUB_API_SHUTDOWN_TIMEOUT_SECONDS")]
    #[arg(hide_env_values = true, value_name = "SECONDS", default_value = "30")]
    #[arg(value_parser = integer::<u64, 0, 3600>)]
    pub api_shutdown_timeout_seconds: u64,

    /// Forget acked messages older than this, in seconds
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_CLEANUP_ACKED_MESSAGES_OLDER_THAN_SECONDS"
    )]
    #[arg(hide_env_values = true, value_name = "SECONDS", default_value = "3600")]
    #[arg(value_parser = integer::<i32, 1, 2_147_483_647>)]
    pub cleanup_acked_messages_older_than_seconds: i32,

    /// Ack deadline of subscriptions that have none of their own, in seconds: a delivery not acked
    /// by then is available again
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_CLEANUP_STUCK_MESSAGES_LOCK_TIMEOUT_SECONDS"
    )]
    #[arg(hide_env_values = true, value_name = "SECONDS", default_value = "60")]
    #[arg(value_parser = integer::<i32, 1, 43200>)]
    pub cleanup_stuck_messages_lock_timeout_seconds: i32,

    /// How long an idempotency key tells a retry from a new message, in seconds: 60 to 604800
    #[arg(long, global = true, env = "FASTPUBSUB_IDEMPOTENCY_WINDOW_SECONDS")]
    #[arg(
        hide_env_values = true,
        value_name = "SECONDS",
        default_value = "86400"
    )]
    #[arg(value_parser = integer::<i32, 60, 604_800>)]
    pub idempotency_window_seconds: i32,

    /// Those of push subscriptions.
    #[command(flatten)]
    pub push: PushSettings,

    /// Require access tokens
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_AUTH_ENABLED",
        hide_env_values = true
    )]
    #[arg(value_name = "BOOL", default_value = "false", value_parser = boolean, action = ArgAction::Set)]
    pub auth_enabled: bool,

    /// Key that signs access tokens, at least 32 bytes; generate_secret_key makes one
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_AUTH_SECRET_KEY",
        hide_env_values = true
    )]
    #[arg(value_name = "KEY", value_parser = secret)]
    pub auth_secret_key: Option<Secret>,

    /// Algorithm that signs access tokens
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_AUTH_ALGORITHM",
        hide_env_values = true
    )]
    #[arg(value_name = "NAME", default_value = "HS256", value_enum)]
    pub auth_algorithm: TokenAlgorithm,

    /// Life of an access token, in minutes: 1 to 525600
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_AUTH_ACCESS_TOKEN_EXPIRE_MINUTES"
    )]
    #[arg(hide_env_values = true, value_name = "MINUTES", default_value = "30")]
    #[arg(value_parser = integer::<i64, 1, 525_600>)]
    pub auth_access_token_expire_minutes: i64,

    /// Stand in for another system: read its own variables too, and serve its API at the root of its
    /// own address
    #[arg(
        long,
        global = true,
        env = "FASTPUBSUB_DROP_IN",
        hide_env_values = true
    )]
    #[arg(value_name = "SYSTEM", value_enum, ignore_case = true)]
    pub drop_in: Option<DropIn>,

    /// Those of the PyQueue door.
    #[command(flatten)]
    pub pyqueue: PyqueueSettings,

    /// Those of the Message Broker door.
    #[command(flatten)]
    pub broker: BrokerSettings,

    /// Those of the Pulsar Proxy door.
    #[command(flatten)]
    pub pulsar: PulsarSettings,
}

impl Settings {
    /// What clap cannot check: settings that contradict each other.
    ///
    /// # Errors
    /// One line that names the settings.
    pub fn check(mut self) -> Result<Self, String> {
        self.pyqueue = self.pyqueue.check()?;
        self.broker
            .check(self.auth_secret_key.is_some(), self.auth_enabled)?;
        self.pulsar.check(self.auth_secret_key.is_some())?;
        if self.subscription_backoff_max_seconds < self.subscription_backoff_min_seconds {
            return Err(format!(
                "FASTPUBSUB_SUBSCRIPTION_BACKOFF_MAX_SECONDS ({}) must not be less than \
                 FASTPUBSUB_SUBSCRIPTION_BACKOFF_MIN_SECONDS ({})",
                self.subscription_backoff_max_seconds, self.subscription_backoff_min_seconds
            ));
        }
        if self.api_max_message_bytes > self.api_max_body_bytes {
            return Err(format!(
                "FASTPUBSUB_API_MAX_MESSAGE_BYTES ({}) must not be more than \
                 FASTPUBSUB_API_MAX_BODY_BYTES ({})",
                self.api_max_message_bytes, self.api_max_body_bytes
            ));
        }
        match &self.auth_secret_key {
            Some(key) if key.reveal().len() < 32 => Err(format!(
                "FASTPUBSUB_AUTH_SECRET_KEY must be at least 32 bytes, it has {}; make one with: \
                 fastpubsub generate_secret_key",
                key.reveal().len()
            )),
            None if self.auth_enabled => Err(
                "FASTPUBSUB_AUTH_ENABLED needs FASTPUBSUB_AUTH_SECRET_KEY, at least 32 bytes; \
                 make one with: fastpubsub generate_secret_key"
                    .to_owned(),
            ),
            _ => Ok(self),
        }
    }
}

/// What variables and the `.env` file of the working directory say, by the upper-case name. A variable
/// beats one of another case, which the Python original accepts, and that beats the file. The names are
/// ours; where fastpubsub stands in for another system, that system's count too.
///
/// # Errors
/// One line, when `.env` exists but cannot be read.
pub fn given_values(drop_in: Option<&OsStr>) -> Result<BTreeMap<String, OsString>, String> {
    let mut values = BTreeMap::new();
    match dotenvy::from_path_iter(".env") {
        Ok(entries) => {
            let mut previous = None;
            for entry in entries {
                // the line itself may hold a secret
                let (name, value) = entry.map_err(|_| match &previous {
                    Some(previous) => format!(".env: the line after {previous} is not NAME=value"),
                    None => ".env: the first line is not NAME=value".to_owned(),
                })?;
                values.insert(name.to_ascii_uppercase(), value.into());
                previous = Some(name);
            }
        }
        Err(error) if error.not_found() => {}
        Err(error) => return Err(format!(".env: {error}")),
    }
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let (usual, other): (Vec<_>, Vec<_>) =
        variables.partition(|(name, _)| *name == name.to_ascii_uppercase());
    for (name, value) in other.into_iter().chain(usual) {
        values.insert(name.to_ascii_uppercase(), value);
    }
    let drop_in = drop_in.or_else(|| values.get("FASTPUBSUB_DROP_IN").map(OsString::as_os_str));
    if let Some(drop_in) = drop_in.and_then(drop_in::named) {
        drop_in::translate(drop_in, &mut values);
    }
    values.retain(|name, _| name.starts_with("FASTPUBSUB_"));
    Ok(values)
}

/// The known name that is the fewest edits away.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.min_by_key(|known| strsim::damerau_levenshtein(name, known))
}
