//! The database's address: what may be written, and what the driver is told.
//!
//! A URL or libpq's keyword form becomes a list of libpq's parameters; these are checked, since the
//! driver ignores what it does not know, and written as the one form of URL that it reads.

mod forms;
mod tls;

use std::collections::BTreeMap;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

use super::{Secret, nearest};

type Parameters = BTreeMap<String, String>;

const FORM: &str = "must be a URL such as postgresql://USER:PASSWORD@HOST:5432/DATABASE";
const SEVERAL: &str = "names several hosts, which is not supported: name one, such as a proxy or a \
                       DNS name that follows the primary";

/// What the driver understands.
const KNOWN: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// Other spellings that the driver takes.
const SPELLINGS: &[(&str, &str)] = &[
    ("ssl-mode", "sslmode"),
    ("ssl-root-cert", "sslrootcert"),
    ("ssl-ca", "sslrootcert"),
    ("ssl-cert", "sslcert"),
    ("ssl-key", "sslkey"),
];

/// Parameters of libpq that change nothing here: any value, or those that ask for nothing more than
/// there is.
const WITHOUT_MEANING: &[(&str, &[&str])] = &[
    ("channel_binding", &["disable", "prefer"]),
    ("client_encoding", &[]),
    ("connect_timeout", &[]),
    ("fallback_application_name", &[]),
    ("gssencmode", &["disable", "prefer"]),
    ("keepalives", &[]),
    ("keepalives_count", &[]),
    ("keepalives_idle", &[]),
    ("keepalives_interval", &[]),
    ("load_balance_hosts", &[]),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("sslcompression", &["0"]),
    ("sslsni", &["1"]),
    ("target_session_attrs", &["any", "read-write", "primary"]),
    ("tcp_user_timeout", &[]),
];

/// Variables of libpq that are checked like the parameter. The driver reads the others itself.
const VARIABLES: &[(&str, &str)] = &[
    ("PGHOSTADDR", "host"),
    ("PGHOST", "host"),
    ("PGPORT", "port"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
];

/// Check an address and bring it into the form that the driver reads.
pub(super) fn database_url(value: &str) -> Result<Secret, String> {
    if value.trim().is_empty() {
        return Err("must not be empty; without it a private Postgres is used".to_owned());
    }
    // secrets that were read from a file
    let value = value.trim_end_matches(['\r', '\n']);
    let mut parameters = known(forms::parameters(value)?)?;
    check_host(&parameters)?;
    for (variable, name) in VARIABLES {
        let is_given = match *name {
            "host" => parameters.contains_key("host") || parameters.contains_key("hostaddr"),
            name => parameters.contains_key(name),
        };
        if let Some(value) = std::env::var(variable).ok().filter(|_| !is_given)
            && !value.is_empty()
        {
            parameters.insert((*name).to_owned(), value);
        }
    }
    check_host(&parameters)?;
    tls::check(&mut parameters)?;
    let query = serde_urlencoded::to_string(&parameters).map_err(|_| FORM.to_owned())?;
    let url = format!("postgresql:///?{query}");
    match PgConnectOptions::from_str(&url) {
        Ok(_) => Ok(Secret::from(url)),
        Err(_) => Err(FORM.to_owned()),
    }
}

/// The parameters that have a meaning, by their usual names; the last of each counts.
fn known(given: Vec<(String, String)>) -> Result<Parameters, String> {
    let mut parameters = Parameters::new();
    for (name, value) in given {
        let spelling = SPELLINGS.iter().find(|(other, _)| *other == name);
        let name = spelling.map_or(name, |(_, usual)| (*usual).to_owned());
        let is_option = name.starts_with("options[") && name.ends_with(']');
        if KNOWN.contains(&name.as_str()) || is_option {
            parameters.insert(name, value);
            continue;
        }
        match WITHOUT_MEANING.iter().find(|(other, _)| *other == name) {
            Some((_, values)) if values.is_empty() || values.contains(&value.as_str()) => {}
            Some((name, values)) => {
                let advice = match *name {
                    "channel_binding" => "sslmode=verify-full protects against the same".to_owned(),
                    _ => format!("possible: {}", values.join(", ")),
                };
                return Err(format!(
                    "has a value of {name} that is not supported ({advice})"
                ));
            }
            None => return Err(unknown(&name)),
        }
    }
    Ok(parameters)
}

/// What is no parameter may be the rest of a password.
fn unknown(name: &str) -> String {
    let is_plain = (1..=40).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-'));
    if !is_plain {
        return "has a ? that no known parameter follows; in a password, write %3F for it"
            .to_owned();
    }
    let hint = nearest(name, KNOWN.iter().copied())
        .filter(|near| strsim::damerau_levenshtein(name, near) <= 2)
        .map_or_else(String::new, |near| format!(" (nearest: {near})"));
    format!("has the parameter {name}, which is not supported{hint}: leave it out")
}

fn check_host(parameters: &Parameters) -> Result<(), String> {
    let several = ["host", "hostaddr", "port"]
        .iter()
        .filter_map(|name| parameters.get(*name))
        .any(|value| value.contains(','));
    if several {
        return Err(SEVERAL.to_owned());
    }
    if parameters.contains_key("host") && parameters.contains_key("hostaddr") {
        return Err("has host and hostaddr: name one of them".to_owned());
    }
    if let Some(address) = parameters.get("hostaddr")
        && address.parse::<std::net::IpAddr>().is_err()
    {
        return Err("has a hostaddr that is no IP address".to_owned());
    }
    match parameters.get("port").map(|port| port.parse::<u16>()) {
        Some(Err(_) | Ok(0)) => {
            Err("has a port (or PGPORT) that is no whole number from 1 to 65535".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(address: &str) -> PgConnectOptions {
        let url = database_url(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        PgConnectOptions::from_str(url.reveal()).unwrap()
    }

    #[test]
    fn every_form_of_one_address_is_the_same_address() {
        for address in [
            "postgresql://u:p%20w@db.example:5433/d",
            "postgres://u:p%20w@db.example:5433/d",
            "POSTGRESQL://u:p%20w@db.example:5433/d\n",
            "postgresql+psycopg://u:p%20w@db.example:5433/d",
            "postgresql+asyncpg://u:p%20w@db.example:5433/d?connect_timeout=3",
            "postgresql://u:p%20w@/d?host=db.example&port=5433",
            "postgresql:///d?host=db.example&port=5433&user=u&password=p%20w",
            "host=db.example port=5433 dbname=d user=u password='p w'",
            "  host = db.example port=5433 dbname = d user=u password=p\\ w ",
        ] {
            let options = options(address);
            assert_eq!(options.get_host(), "db.example", "{address}");
            assert_eq!(options.get_port(), 5433, "{address}");
            assert_eq!(options.get_username(), "u", "{address}");
            assert_eq!(options.get_database(), Some("d"), "{address}");
        }
    }

    #[test]
    fn a_socket_is_named_in_every_form() {
        for address in [
            "postgresql://u:p@/d?host=/run/pg&port=5433",
            "postgresql+psycopg://u:p@%2Frun%2Fpg:5433/d",
            "postgresql://u:p@localhost:5433/d?host=/run/pg",
            "host=/run/pg port=5433 user=u dbname=d sslmode=require",
        ] {
            let options = options(address);
            let socket = options.get_socket().map(|socket| socket.to_str().unwrap());
            assert_eq!(socket, Some("/run/pg"), "{address}");
            assert_eq!(options.get_port(), 5433, "{address}");
        }
    }

    #[test]
    fn an_address_of_ipv6_has_no_brackets() {
        assert_eq!(options("postgresql://u@[::1]:5433/d").get_host(), "::1");
    }

    #[test]
    fn what_does_not_work_is_told_without_the_password() {
        for (address, expected) in [
            ("", "must not be empty"),
            ("hunter2", "must be a URL"),
            ("mysql://u:hunter2@h/d", "must be a URL"),
            ("postgresql://u:hunter2@a:1,b:2/d", "several hosts"),
            ("host=a,b password=hunter2", "several hosts"),
            ("postgresql://u:hunter2@h:99999/d", "port"),
            ("postgresql://u:hun#ter2@h/d", "%23"),
            ("postgresql://u:1/hunter2@h/d", "%2F"),
            ("postgresql://u:1?hunter2@h/d", "%3F"),
            (
                "postgresql://u:hunter2@h/d?sslmod=require",
                "nearest: sslmode",
            ),
            ("postgresql://u:hunter2@h/d?sslmode=hunter2", "verify-full"),
            (
                "postgresql://u:p@h/d?channel_binding=require",
                "verify-full",
            ),
            ("postgresql://u:p@h/d?service=hunter2", "service"),
            ("host=h password='hunter2", "quote"),
            ("host=h hunter2", "must be a URL"),
            ("postgresql://u:p@h/d?sslcert=/x", "sslkey"),
            ("postgresql://u:p@h/d?hostaddr=1.2.3.4", "hostaddr"),
        ] {
            let error = database_url(address).unwrap_err();
            assert!(error.contains(expected), "{address}: {error}");
            assert!(!error.contains("hunter2"), "{address}: {error}");
        }
    }
}
