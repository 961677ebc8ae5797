//! Settings of the Pulsar Proxy door: the proxy's own names behind `FASTPUBSUB_PULSAR_`.

use std::net::{Ipv4Addr, SocketAddr};

use clap::Args;

use super::Secret;
use super::values::{boolean, integer, secret, socket_address};

/// What the Pulsar Proxy door is told.
#[derive(Clone, Debug, Args)]
pub struct PulsarSettings {
    /// A port where the Pulsar Proxy door alone is served, at the root, on all addresses
    #[arg(
        id = "pulsar_http_port",
        long = "pulsar-http-port",
        global = true,
        env = "FASTPUBSUB_PULSAR_HTTP_PORT"
    )]
    #[arg(hide_env_values = true, value_name = "PORT", value_parser = integer::<u16, 0, 65535>)]
    pub http_port: Option<u16>,

    /// An address where the Pulsar Proxy door alone is served, at the root, such as 0.0.0.0:8080; wins over
    /// the port
    #[arg(
        id = "pulsar_listen",
        long = "pulsar-listen",
        global = true,
        env = "FASTPUBSUB_PULSAR_LISTEN"
    )]
    #[arg(hide_env_values = true, value_name = "IP:PORT", value_parser = socket_address)]
    pub listen: Option<SocketAddr>,

    /// How long messages of the Pulsar Proxy door can be replayed, in seconds
    #[arg(
        id = "pulsar_hot_tier_retention",
        long = "pulsar-hot-tier-retention",
        global = true,
        env = "FASTPUBSUB_PULSAR_HOT_TIER_RETENTION"
    )]
    #[arg(hide_env_values = true, value_name = "SECONDS", default_value = "600")]
    #[arg(value_parser = integer::<i32, 0, 604_800>)]
    pub hot_tier_retention: i32,

    /// Most messages of a topic of the Pulsar Proxy door that can be replayed, the newest
    #[arg(
        id = "pulsar_max_messages_per_topic",
        long = "pulsar-max-messages-per-topic",
        global = true,
        env = "FASTPUBSUB_PULSAR_MAX_MESSAGES_PER_TOPIC"
    )]
    #[arg(hide_env_values = true, value_name = "N", default_value = "1000000")]
    #[arg(value_parser = integer::<i32, 1, 10_000_000>)]
    pub max_messages_per_topic: i32,

    /// WebSockets of the Pulsar Proxy door that this process has at a time
    #[arg(
        id = "pulsar_max_connections_per_instance",
        long = "pulsar-max-connections-per-instance",
        global = true,
        env = "FASTPUBSUB_PULSAR_MAX_CONNECTIONS_PER_INSTANCE"
    )]
    #[arg(hide_env_values = true, value_name = "N", default_value = "10000")]
    #[arg(value_parser = integer::<usize, 1, 1_000_000>)]
    pub max_connections_per_instance: usize,

    /// Largest message of the Pulsar Proxy door, in bytes of JSON
    #[arg(
        id = "pulsar_max_message_size",
        long = "pulsar-max-message-size",
        global = true,
        env = "FASTPUBSUB_PULSAR_MAX_MESSAGE_SIZE"
    )]
    #[arg(
        hide_env_values = true,
        value_name = "BYTES",
        default_value = "1048576"
    )]
    #[arg(value_parser = integer::<usize, 1, 10_485_760>)]
    pub max_message_size: usize,

    /// Messages and frames a minute and client of the Pulsar Proxy door; 0 for any number
    #[arg(
        id = "pulsar_rate_limit_per_client",
        long = "pulsar-rate-limit-per-client",
        global = true,
        env = "FASTPUBSUB_PULSAR_RATE_LIMIT_PER_CLIENT"
    )]
    #[arg(hide_env_values = true, value_name = "N", default_value = "0")]
    #[arg(value_parser = integer::<u32, 0, 1_000_000_000>)]
    pub rate_limit_per_client: u32,

    /// Whether callers of the Pulsar Proxy door show a token, also where the native API asks for none
    #[arg(
        id = "pulsar_jwt_enabled",
        long = "pulsar-jwt-enabled",
        global = true,
        env = "FASTPUBSUB_PULSAR_JWT_ENABLED"
    )]
    #[arg(
        hide_env_values = true,
        value_name = "BOOLEAN",
        default_value = "false"
    )]
    #[arg(value_parser = boolean, action = clap::ArgAction::Set)]
    pub jwt_enabled: bool,

    /// Secret of the tokens (HS256) that callers of the Pulsar Proxy door show, beside native tokens and API keys
    #[arg(
        id = "pulsar_jwt_secret_key",
        long = "pulsar-jwt-secret-key",
        global = true,
        env = "FASTPUBSUB_PULSAR_JWT_SECRET_KEY"
    )]
    #[arg(hide_env_values = true, value_name = "SECRET", value_parser = secret)]
    pub jwt_secret_key: Option<Secret>,
}

impl PulsarSettings {
    /// Where the door alone is, if anywhere, and the setting that says so.
    #[must_use]
    pub fn address(&self) -> Option<(SocketAddr, &'static str)> {
        let at_port = self
            .http_port
            .map(|port| (Ipv4Addr::UNSPECIFIED, port).into());
        let listen = self
            .listen
            .map(|address| (address, "FASTPUBSUB_PULSAR_LISTEN"));
        listen.or(at_port.map(|address| (address, "FASTPUBSUB_PULSAR_HTTP_PORT")))
    }

    /// Whether anybody may do everything, if the native API is `closed` or is not.
    #[must_use]
    pub fn is_open(&self, closed: bool) -> bool {
        !self.jwt_enabled && !closed
    }

    /// What clap cannot check; `tokens` says whether there are native ones.
    ///
    /// # Errors
    /// One line that names the settings.
    pub(super) fn check(&self, tokens: bool) -> Result<(), String> {
        if self.jwt_enabled && self.jwt_secret_key.is_none() && !tokens {
            return Err(
                "FASTPUBSUB_PULSAR_JWT_ENABLED is true: it needs FASTPUBSUB_PULSAR_JWT_SECRET_KEY, or \
                 FASTPUBSUB_AUTH_SECRET_KEY for native tokens"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
