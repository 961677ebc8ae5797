//! Settings of the Message Broker door: the broker's own names behind `FASTPUBSUB_BROKER_`.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use super::values::{dead_letter_suffix, integer, origins, secret, socket_address};
use super::{Origins, Secret};

/// Secrets of the broker's README, which everybody knows.
const EXAMPLES: [&str; 2] = ["supersecretkey", "change_me"];
/// Where they do no harm.
const DEVELOPMENT: &str = "development";

/// What callers have to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum AuthMode {
    /// Nothing.
    None,
    /// The API key of the settings, or one of a client.
    ApiKey,
    /// A token.
    Bearer,
}

/// How the wait grows from retry to retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backoff {
    /// Not at all.
    Fixed,
    /// By the first wait each time.
    Linear,
    /// It doubles.
    Exponential,
}

impl Backoff {
    /// Its name, as subscriptions have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Linear => "linear",
            Self::Exponential => "exponential",
        }
    }
}

/// What the Message Broker door is told.
#[derive(Clone, Debug, Args)]
pub struct BrokerSettings {
    /// What callers of the Message Broker door show: none for nothing, apikey, or bearer for tokens. By
    /// default apikey if there is an API key, bearer if there is a secret of tokens, else as the native API
    #[arg(
        id = "broker_auth_mode",
        long = "broker-auth-mode",
        global = true,
        env = "FASTPUBSUB_BROKER_AUTH_MODE"
    )]
    #[arg(
        hide_env_values = true,
        value_name = "MODE",
        value_enum,
        ignore_case = true
    )]
    pub auth_mode: Option<AuthMode>,

    /// Key that may do everything through the Message Broker door
    #[arg(
        id = "broker_api_key",
        long = "broker-api-key",
        global = true,
        env = "FASTPUBSUB_BROKER_API_KEY"
    )]
    #[arg(hide_env_values = true, value_name = "KEY", value_parser = secret)]
    pub api_key: Option<Secret>,

    /// Secret of the tokens (HS256) that callers of the Message Broker door show; without it they are the
    /// native ones
    #[arg(
        id = "broker_jwt_secret",
        long = "broker-jwt-secret",
        global = true,
        env = "FASTPUBSUB_BROKER_JWT_SECRET"
    )]
    #[arg(hide_env_values = true, value_name = "SECRET", value_parser = secret)]
    pub jwt_secret: Option<Secret>,

    /// development allows the secrets of the broker's README
    #[arg(
        id = "broker_app_env",
        long = "broker-app-env",
        global = true,
        env = "FASTPUBSUB_BROKER_APP_ENV"
    )]
    #[arg(
        hide_env_values = true,
        value_name = "NAME",
        default_value = "production"
    )]
    pub app_env: String,

    /// For how long a pulled message is hidden from others, in seconds
    #[arg(
        id = "broker_visibility_timeout_sec",
        long = "broker-visibility-timeout-sec",
        global = true,
        env = "FASTPUBSUB_BROKER_VISIBILITY_TIMEOUT_SEC"
    )]
    #[arg(hide_env_values = true, value_name = "SECONDS", default_value = "30")]
    #[arg(value_parser = integer::<i32, 1, 43200>)]
    pub visibility_timeout_sec: i32,

    /// How often a message is delivered again before it is in the dead-letter queue
    #[arg(
        id = "broker_max_retries",
        long = "broker-max-retries",
        global = true,
        env = "FASTPUBSUB_BROKER_MAX_RETRIES"
    )]
    #[arg(hide_env_values = true, value_name = "N", default_value = "5")]
    #[arg(value_parser = integer::<i32, 0, 1_000_000>)]
    pub max_retries: i32,

    /// How the wait grows from retry to retry
    #[arg(
        id = "broker_backoff_strategy",
        long = "broker-backoff-strategy",
        global = true,
        env = "FASTPUBSUB_BROKER_BACKOFF_STRATEGY"
    )]
    #[arg(
        hide_env_values = true,
        value_name = "STRATEGY",
        default_value = "exponential"
    )]
    #[arg(value_enum, ignore_case = true)]
    pub backoff_strategy: Backoff,

    /// First wait before a retry, in milliseconds; the longest is an hour
    #[arg(
        id = "broker_backoff_base_ms",
        long = "broker-backoff-base-ms",
        global = true,
        env = "FASTPUBSUB_BROKER_BACKOFF_BASE_MS"
    )]
    #[arg(hide_env_values = true, value_name = "MS", default_value = "500")]
    #[arg(value_parser = integer::<i32, 1, 3_600_000>)]
    pub backoff_base_ms: i32,

    /// What the names of dead-letter queues end in
    #[arg(
        id = "broker_dlq_suffix",
        long = "broker-dlq-suffix",
        global = true,
        env = "FASTPUBSUB_BROKER_DLQ_SUFFIX"
    )]
    #[arg(hide_env_values = true, value_name = "TEXT", default_value = ".DLQ")]
    #[arg(value_parser = dead_letter_suffix)]
    pub dlq_suffix: String,

    /// Origins of web pages that may call the Message Broker door, separated by commas; * for all
    #[arg(
        id = "broker_cors_origins",
        long = "broker-cors-origins",
        global = true,
        env = "FASTPUBSUB_BROKER_CORS_ORIGINS"
    )]
    #[arg(hide_env_values = true, value_name = "ORIGINS", value_parser = origins)]
    pub cors_origins: Option<Origins>,

    /// Requests a minute and client of the Message Broker door; 0 for any number
    #[arg(
        id = "broker_rate_limit",
        long = "broker-rate-limit",
        global = true,
        env = "FASTPUBSUB_BROKER_RATE_LIMIT"
    )]
    #[arg(hide_env_values = true, value_name = "N", default_value = "0")]
    #[arg(value_parser = integer::<u32, 0, 1_000_000_000>)]
    pub rate_limit: u32,

    /// An address where the Message Broker door alone is served, at the root, such as 0.0.0.0:8080
    #[arg(
        id = "broker_listen",
        long = "broker-listen",
        global = true,
        env = "FASTPUBSUB_BROKER_LISTEN"
    )]
    #[arg(hide_env_values = true, value_name = "IP:PORT", value_parser = socket_address)]
    pub listen: Option<SocketAddr>,
}

impl BrokerSettings {
    /// What callers have to show; none: what they show to the native API.
    #[must_use]
    pub fn mode(&self) -> Option<AuthMode> {
        let by_secret = || match (&self.api_key, &self.jwt_secret) {
            (Some(_), _) => Some(AuthMode::ApiKey),
            (None, Some(_)) => Some(AuthMode::Bearer),
            (None, None) => None,
        };
        self.auth_mode.or_else(by_secret)
    }

    /// Whether anybody may do everything, if the native API is `closed` or is not.
    #[must_use]
    pub fn is_open(&self, closed: bool) -> bool {
        match self.mode() {
            Some(mode) => mode == AuthMode::None,
            None => !closed,
        }
    }

    /// What clap cannot check; `tokens` says whether there are native ones, `closed` whether the native API
    /// asks for them.
    ///
    /// # Errors
    /// One line that names the settings.
    pub(super) fn check(&self, tokens: bool, closed: bool) -> Result<(), String> {
        let is_example = |secret: &Option<Secret>| {
            let secret = secret.as_ref().map(Secret::reveal);
            secret.is_some_and(|secret| EXAMPLES.contains(&secret))
        };
        let is_production = !self.app_env.eq_ignore_ascii_case(DEVELOPMENT);
        for (name, secret) in [
            ("FASTPUBSUB_BROKER_API_KEY", &self.api_key),
            ("FASTPUBSUB_BROKER_JWT_SECRET", &self.jwt_secret),
        ] {
            if is_production && is_example(secret) {
                return Err(format!(
                    "{name} is that of the broker's README, which everybody knows; fastpubsub \
                     generate_secret_key makes another (FASTPUBSUB_BROKER_APP_ENV=development allows it)"
                ));
            }
        }
        match self.mode() {
            Some(AuthMode::None) if closed => Err(
                "FASTPUBSUB_BROKER_AUTH_MODE is none, but FASTPUBSUB_AUTH_ENABLED is true: no door is \
                 open beside a closed one"
                    .to_owned(),
            ),
            Some(AuthMode::Bearer) if self.jwt_secret.is_none() && !tokens => Err(
                "FASTPUBSUB_BROKER_AUTH_MODE is bearer: it needs FASTPUBSUB_BROKER_JWT_SECRET, or \
                 FASTPUBSUB_AUTH_SECRET_KEY for native tokens"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}
