//! Standing in for another system: its own variables, without our prefix, as it read them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::ValueEnum;

/// A system whose place fastpubsub takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DropIn {
    /// PyQueue Server.
    Pyqueue,
    /// The Message Broker.
    Broker,
}

/// What a system calls its settings, and what they are here.
struct System {
    /// What ours begin with.
    prefix: &'static str,
    /// Names that it has without a prefix, each ours with one.
    names: &'static [&'static str],
    /// Those that are not so regular.
    others: &'static [(&'static str, &'static str)],
    /// What it calls its address and its port, and what those are by default.
    host: (&'static str, &'static str),
    port: (&'static str, &'static str),
}

const PYQUEUE: System = System {
    prefix: "FASTPUBSUB_PYQUEUE_",
    names: &[
        "API_KEYS_FILE",
        "MAX_MESSAGE_SIZE",
        "DEFAULT_VISIBILITY_TIMEOUT",
        "MAX_RECEIVE_COUNT",
        "API_V1_PREFIX",
        "STORAGE_BACKEND",
        "JSON_STORAGE_DIR",
        "SQLITE_DB_PATH",
        "QUEUE_DATA_DIR",
        "DEBUG",
        "LOG_LEVEL",
    ],
    others: &[("PYQUEUE_API_KEYS_JSON", "FASTPUBSUB_PYQUEUE_API_KEYS_JSON")],
    host: ("HOST", "localhost"),
    port: ("PORT", "8000"),
};

const BROKER: System = System {
    prefix: "FASTPUBSUB_BROKER_",
    names: &[
        "AUTH_MODE",
        "API_KEY",
        "JWT_SECRET",
        "APP_ENV",
        "VISIBILITY_TIMEOUT_SEC",
        "MAX_RETRIES",
        "BACKOFF_STRATEGY",
        "BACKOFF_BASE_MS",
        "DLQ_SUFFIX",
        "CORS_ORIGINS",
        "RATE_LIMIT",
        "STORE_BACKEND",
        "REDIS_URL",
    ],
    others: &[],
    host: ("APP_HOST", "0.0.0.0"),
    port: ("APP_PORT", "8080"),
};

/// Where PyQueue Server keeps its keys if nobody says.
const PYQUEUE_KEYS: &str = "config/api_keys.json";

/// Settings of other systems that are taken and mean nothing here: everything is in Postgres, and logs
/// have the settings of the service.
pub const WITHOUT_EFFECT: [&str; 8] = [
    "FASTPUBSUB_PYQUEUE_STORAGE_BACKEND",
    "FASTPUBSUB_PYQUEUE_JSON_STORAGE_DIR",
    "FASTPUBSUB_PYQUEUE_SQLITE_DB_PATH",
    "FASTPUBSUB_PYQUEUE_QUEUE_DATA_DIR",
    "FASTPUBSUB_PYQUEUE_DEBUG",
    "FASTPUBSUB_PYQUEUE_LOG_LEVEL",
    "FASTPUBSUB_BROKER_STORE_BACKEND",
    "FASTPUBSUB_BROKER_REDIS_URL",
];

/// Add what a system's own variables say under our names, which win.
pub fn translate(drop_in: DropIn, values: &mut BTreeMap<String, OsString>) {
    let system = match drop_in {
        DropIn::Pyqueue => &PYQUEUE,
        DropIn::Broker => &BROKER,
    };
    let regular = system
        .names
        .iter()
        .map(|name| (*name, format!("{}{name}", system.prefix)));
    let others = system.others.iter();
    let all = regular.chain(others.map(|(name, ours)| (*name, (*ours).to_owned())));
    for (name, ours) in all {
        // as in compose files, an empty variable says nothing
        if let Some(value) = values.get(name).filter(|value| !value.is_empty()) {
            let value = value.clone();
            values.entry(ours).or_insert(value);
        }
    }
    let given = |(name, default): (&str, &str)| {
        let value = values.get(name).filter(|value| !value.is_empty());
        value.map_or_else(|| OsString::from(default), Clone::clone)
    };
    let mut address = given(system.host);
    if address.to_str().is_some_and(|host| host.contains(':')) {
        // of IPv6
        address = format!("[{}]", address.display()).into();
    }
    address.push(":");
    address.push(given(system.port));
    let listen = format!("{}LISTEN", system.prefix);
    let listen = values.entry(listen).or_insert(address);
    // nothing is open that was not: the native API is served where it has a port of its own
    let port = listen
        .to_str()
        .and_then(|address| address.rsplit(':').next())
        // what is no port is told as the address
        .filter(|port| port.parse::<u16>().is_ok());
    if let Some(port) = port.map(OsString::from) {
        values
            .entry("FASTPUBSUB_API_PORT".to_owned())
            .or_insert(port);
    }
    if drop_in == DropIn::Pyqueue && Path::new(PYQUEUE_KEYS).exists() {
        let file = format!("{}API_KEYS_FILE", system.prefix);
        values.entry(file).or_insert(PYQUEUE_KEYS.into());
    }
}

/// The system of a value, if it is one; what else it may be is checked where settings are.
#[must_use]
pub fn named(value: &OsStr) -> Option<DropIn> {
    DropIn::from_str(value.to_str()?, true).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(given: &[(&str, &str)]) -> BTreeMap<String, OsString> {
        translated_for(DropIn::Pyqueue, given)
    }

    fn translated_for(drop_in: DropIn, given: &[(&str, &str)]) -> BTreeMap<String, OsString> {
        let mut values = given
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
            .collect();
        translate(drop_in, &mut values);
        values
    }

    #[test]
    fn the_broker_s_variables_are_its_own() {
        let given = [
            ("APP_PORT", "81"),
            ("JWT_SECRET", "x"),
            ("MAX_MESSAGE_SIZE", "5"),
        ];
        let values = translated_for(DropIn::Broker, &given);

        assert_eq!(values["FASTPUBSUB_BROKER_LISTEN"], "0.0.0.0:81");
        assert_eq!(values["FASTPUBSUB_BROKER_JWT_SECRET"], "x");
        assert!(
            !values
                .keys()
                .any(|name| name.starts_with("FASTPUBSUB_PYQUEUE"))
        );
    }

    #[test]
    fn a_system_s_own_variables_count_where_ours_do_not_say() {
        let values = translated(&[
            ("HOST", "0.0.0.0"),
            ("MAX_MESSAGE_SIZE", "5"),
            ("MAX_RECEIVE_COUNT", "3"),
            ("FASTPUBSUB_PYQUEUE_MAX_RECEIVE_COUNT", "4"),
            ("PYQUEUE_API_KEYS_JSON", "{}"),
            ("STORAGE_BACKEND", ""),
        ]);

        assert_eq!(values["FASTPUBSUB_PYQUEUE_LISTEN"], "0.0.0.0:8000");
        assert_eq!(values["FASTPUBSUB_PYQUEUE_MAX_MESSAGE_SIZE"], "5");
        assert_eq!(values["FASTPUBSUB_PYQUEUE_MAX_RECEIVE_COUNT"], "4");
        assert_eq!(values["FASTPUBSUB_PYQUEUE_API_KEYS_JSON"], "{}");
        assert!(!values.contains_key("FASTPUBSUB_PYQUEUE_STORAGE_BACKEND"));
    }

    #[test]
    fn an_address_of_ours_wins_over_theirs() {
        let listen = "FASTPUBSUB_PYQUEUE_LISTEN";
        assert_eq!(translated(&[])[listen], "localhost:8000");
        let values = translated(&[("PORT", "1"), (listen, "[::1]:2")]);
        assert_eq!(values[listen], "[::1]:2");
        assert_eq!(values["FASTPUBSUB_API_PORT"], "2");
        let values = translated(&[("HOST", "::"), ("FASTPUBSUB_API_PORT", "9000")]);
        assert_eq!(values[listen], "[::]:8000");
        assert_eq!(values["FASTPUBSUB_API_PORT"], "9000");
    }
}
