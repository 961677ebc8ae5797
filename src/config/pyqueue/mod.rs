//! Settings of the PyQueue door: PyQueue Server's own names behind `FASTPUBSUB_PYQUEUE_`.

pub mod keys;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::values::{integer, path_prefix, socket_address};
use keys::Keys;

/// What the PyQueue door is told.
#[derive(Clone, Debug, Args)]
pub struct PyqueueSettings {
    /// API keys of the PyQueue door, as JSON: {"KEY": {"description": "...", "queues": {"NAME or *":
    /// ["read", "write", "delete", "manage"]}}}
    #[arg(
        id = "pyqueue_api_keys_json",
        long = "pyqueue-api-keys-json",
        global = true,
        env = "FASTPUBSUB_PYQUEUE_API_KEYS_JSON"
    )]
    #[arg(hide_env_values = true, value_name = "JSON", value_parser = Keys::parse)]
    pub api_keys_json: Option<Keys>,

    /// A file of such keys; those of the JSON setting win
    #[arg(
        id = "pyqueue_api_keys_file",
        long = "pyqueue-api-keys-file",
        global = true,
        env = "FASTPUBSUB_PYQUEUE_API_KEYS_FILE"
    )]
    #[arg(hide_env_values = true, value_name = "FILE")]
    pub api_keys_file: Option<PathBuf>,

    /// Largest message of the PyQueue door, in bytes of JSON
    #[arg(
        id = "pyqueue_max_message_size",
        long = "pyqueue-max-message-size",
        global = true,
        env = "FASTPUBSUB_PYQUEUE_MAX_MESSAGE_SIZE"
    )]
    #[arg(hide_env_values = true, value_name = "BYTES", default_value = "262144")]
    #[arg(value_parser = integer::<usize, 1, 10_485_760>)]
    pub max_message_size: usize,

    /// For how long a received message is hidden from others, in seconds, unless the request says
    #[arg(
        id = "pyqueue_default_visibility_timeout",
        long = "pyqueue-default-visibility-timeout",
        global = true,
        env = "FASTPUBSUB_PYQUEUE_DEFAULT_VISIBILITY_TIMEOUT"
    )]
    #[arg(hide_env_values = true, value_name = "SECONDS", default_value = "30")]
    #[arg(value_parser = integer::<i32, 1, 43200>)]
    pub default_visibility_timeout: i32,

    /// A message received so often and not deleted becomes a dead letter; 0 for never
    #[arg(
        id = "pyqueue_max_receive_count",
        long = "pyqueue-max-receive-count",
        global = true,
        env = "FASTPUBSUB_PYQUEUE_MAX_RECEIVE_COUNT"
    )]
    #[arg(hide_env_values = true, value_name = "N", default_value = "0")]
    #[arg(value_parser = integer::<i32, 0, 2_147_483_646>)]
    pub max_receive_count: i32,

    /// What the paths of the PyQueue door's API begin with
    #[arg(
        id = "pyqueue_api_v1_prefix",
        long = "pyqueue-api-v1-prefix",
        global = true,
        env = "FASTPUBSUB_PYQUEUE_API_V1_PREFIX"
    )]
    #[arg(hide_env_values = true, value_name = "PATH", default_value = "/api/v1")]
    #[arg(value_parser = path_prefix)]
    pub api_v1_prefix: String,

    /// An address where the PyQueue door alone is served, at the root, such as 0.0.0.0:8001
    #[arg(
        id = "pyqueue_listen",
        long = "pyqueue-listen",
        global = true,
        env = "FASTPUBSUB_PYQUEUE_LISTEN"
    )]
    #[arg(hide_env_values = true, value_name = "IP:PORT", value_parser = socket_address)]
    pub listen: Option<SocketAddr>,

    /// The keys of both sources, once they are checked.
    #[arg(skip)]
    pub keys: Keys,
}

impl PyqueueSettings {
    /// Read the file of keys.
    ///
    /// # Errors
    /// One line, when it cannot be read or is wrong.
    pub(super) fn check(mut self) -> Result<Self, String> {
        if let Some(file) = &self.api_keys_file {
            let name = "FASTPUBSUB_PYQUEUE_API_KEYS_FILE";
            let place = file.display();
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("{name} ({place}): {error}"))?;
            self.keys = Keys::parse(&text).map_err(|wrong| format!("{name} ({place}) {wrong}"))?;
        }
        if let Some(keys) = self.api_keys_json.take() {
            self.keys.extend(keys);
        }
        Ok(self)
    }
}
