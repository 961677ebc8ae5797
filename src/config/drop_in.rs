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
    /// Pulsar Proxy.
    Pulsar,
}

/// What a system calls its settings, and what they are here.
struct System {
    /// What ours begin with.
    prefix: &'static str,
    /// Names that it has without a prefix, each ours with one.
    names: &'static [&'static str],
    /// What the names of some of its versions begin with, too; those win.
    own_prefix: Option<&'static str>,
    /// What the names of others that it has begin with.
    families: &'static [&'static str],
    /// Those that are not so regular.
    others: &'static [(&'static str, &'static str)],
    /// What it calls its address, if anything, and its port, and what those are by default.
    host: (Option<&'static str>, &'static str),
    port: (&'static str, &'static str),
}

impl System {
    /// Its names, those that count more first, each with ours.
    fn names_here(&self, values: &BTreeMap<String, OsString>) -> Vec<(String, String)> {
        let of_families = self.families.iter().flat_map(|family| {
            let names = values.keys().map(String::as_str);
            let bare = names.map(|name| match self.own_prefix {
                Some(prefix) => name.strip_prefix(prefix).unwrap_or(name),
                None => name,
            });
            bare.filter(move |name| name.starts_with(family))
        });
        let bare: Vec<&str> = self.names.iter().copied().chain(of_families).collect();
        let ours = |name: &str| format!("{}{name}", self.prefix);
        let prefixed = self.own_prefix.into_iter().flat_map(|prefix| {
            let name = move |name: &&str| (format!("{prefix}{name}"), ours(name));
            bare.iter().map(name)
        });
        let regular = bare.iter().map(|name| ((*name).to_owned(), ours(name)));
        let others = self.others.iter();
        let others = others.map(|(name, ours)| ((*name).to_owned(), (*ours).to_owned()));
        prefixed.chain(regular).chain(others).collect()
    }
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
    own_prefix: None,
    families: &[],
    others: &[("PYQUEUE_API_KEYS_JSON", "FASTPUBSUB_PYQUEUE_API_KEYS_JSON")],
    host: (Some("HOST"), "localhost"),
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
    own_prefix: None,
    families: &[],
    others: &[],
    host: (Some("APP_HOST"), "0.0.0.0"),
    port: ("APP_PORT", "8080"),
};

const PULSAR: System = System {
    prefix: "FASTPUBSUB_PULSAR_",
    names: &[
        "HTTP_PORT",
        "HOT_TIER_RETENTION",
        "MAX_MESSAGES_PER_TOPIC",
        "MAX_CONNECTIONS_PER_INSTANCE",
        "MAX_MESSAGE_SIZE",
        "RATE_LIMIT_PER_CLIENT",
        "JWT_ENABLED",
        "JWT_SECRET_KEY",
        "APP_NAME",
        "LOG_LEVEL",
        "STORAGE_BACKEND",
        "PERSISTENT_TIER_RETENTION",
    ],
    own_prefix: Some("PULSAR_"),
    families: &["VALKEY_"],
    others: &[],
    host: (None, "0.0.0.0"),
    port: ("FASTPUBSUB_PULSAR_HTTP_PORT", "8080"),
};

/// Where PyQueue Server keeps its keys if nobody says.
const PYQUEUE_KEYS: &str = "config/api_keys.json";

/// Settings of other systems that are taken and mean nothing here: everything is in Postgres, and logs
/// have the settings of the service.
const WITHOUT_EFFECT: [&str; 12] = [
    "FASTPUBSUB_PYQUEUE_STORAGE_BACKEND",
    "FASTPUBSUB_PYQUEUE_JSON_STORAGE_DIR",
    "FASTPUBSUB_PYQUEUE_SQLITE_DB_PATH",
    "FASTPUBSUB_PYQUEUE_QUEUE_DATA_DIR",
    "FASTPUBSUB_PYQUEUE_DEBUG",
    "FASTPUBSUB_PYQUEUE_LOG_LEVEL",
    "FASTPUBSUB_BROKER_STORE_BACKEND",
    "FASTPUBSUB_BROKER_REDIS_URL",
    "FASTPUBSUB_PULSAR_APP_NAME",
    "FASTPUBSUB_PULSAR_LOG_LEVEL",
    "FASTPUBSUB_PULSAR_STORAGE_BACKEND",
    "FASTPUBSUB_PULSAR_PERSISTENT_TIER_RETENTION",
];
/// What the names of others begin with.
const FAMILY_WITHOUT_EFFECT: &str = "FASTPUBSUB_PULSAR_VALKEY_";

/// Whether a setting of another system is taken, and means nothing here.
#[must_use]
pub fn is_without_effect(name: &str) -> bool {
    WITHOUT_EFFECT.contains(&name) || name.starts_with(FAMILY_WITHOUT_EFFECT)
}

/// Add what a system's own variables say under our names, which win.
pub fn translate(drop_in: DropIn, values: &mut BTreeMap<String, OsString>) {
    let system = match drop_in {
        DropIn::Pyqueue => &PYQUEUE,
        DropIn::Broker => &BROKER,
        DropIn::Pulsar => &PULSAR,
    };
    for (name, ours) in system.names_here(values) {
        // as in compose files, an empty variable says nothing
        if let Some(value) = values.get(&name).filter(|value| !value.is_empty()) {
            let value = value.clone();
            values.entry(ours).or_insert(value);
        }
    }
    let given = |name: Option<&str>, default| {
        let value = name.and_then(|name| values.get(name));
        let value = value.filter(|value| !value.is_empty());
        value.map_or_else(|| OsString::from(default), Clone::clone)
    };
    let mut address = given(system.host.0, system.host.1);
    if address.to_str().is_some_and(|host| host.contains(':')) {
        // of IPv6
        address = format!("[{}]", address.display()).into();
    }
    address.push(":");
    address.push(given(Some(system.port.0), system.port.1));
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
    fn the_proxy_s_variables_have_a_prefix_or_none() {
        let given = [
            ("HTTP_PORT", "81"),
            ("PULSAR_HTTP_PORT", "82"),
            ("JWT_SECRET_KEY", "x"),
            ("VALKEY_URL", "redis://"),
            ("PULSAR_VALKEY_HOST", "h"),
            ("PULSAR_MAX_MESSAGE_SIZE", "5"),
            ("FASTPUBSUB_PULSAR_MAX_MESSAGE_SIZE", "6"),
        ];
        let values = translated_for(DropIn::Pulsar, &given);

        for (name, value) in [
            ("LISTEN", "0.0.0.0:82"),
            ("JWT_SECRET_KEY", "x"),
            ("MAX_MESSAGE_SIZE", "6"),
        ] {
            assert_eq!(values[&format!("FASTPUBSUB_PULSAR_{name}")], value);
        }
        for name in ["VALKEY_URL", "VALKEY_HOST"] {
            let name = format!("FASTPUBSUB_PULSAR_{name}");
            assert!(values.contains_key(&name) && is_without_effect(&name));
        }
        assert_eq!(
            translated_for(DropIn::Pulsar, &[])["FASTPUBSUB_PULSAR_LISTEN"],
            "0.0.0.0:8080"
        );
        let given = [("FASTPUBSUB_PULSAR_HTTP_PORT", "83"), ("HTTP_PORT", "81")];
        assert_eq!(
            translated_for(DropIn::Pulsar, &given)["FASTPUBSUB_PULSAR_LISTEN"],
            "0.0.0.0:83"
        );
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
