//! Settings: what is refused, and how.

use super::{HIDDEN, PROBE, Sandbox};

/// Settings, bad values and what their error says.
fn bad_values() -> Vec<(&'static str, Vec<String>, &'static str)> {
    let url = "must be a URL such as postgresql://USER:PASSWORD@HOST:5432/DATABASE";
    let boolean = "must be true or false";
    let text = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    let beyond = |min: i64, max: i64| {
        let mut values: Vec<String> = text(&[HIDDEN, "", "1.5", "99999999999999999999"]);
        values.extend([(min - 1).to_string(), (max + 1).to_string()]);
        values
    };
    const POSITIVE: &str = "must be a whole number from 1 to 2147483647";
    const MAX: i64 = 2_147_483_647;
    vec![
        (
            "DATABASE_URL",
            text(&[
                HIDDEN,
                "mysql://u:hunter2@h/d",
                "sqlite+psycopg://u:hunter2@h/d",
                " postgresql://u:hunter2@h/d",
            ]),
            url,
        ),
        (
            "DATABASE_URL",
            text(&["postgresql://u:hunter2@h:99999/d", "host=h port=hunter2"]),
            "has a port (or PGPORT) that is no whole number from 1 to 65535",
        ),
        (
            "DATABASE_URL",
            text(&["", " "]),
            "must not be empty; without it a private Postgres is used",
        ),
        (
            "AUTH_SECRET_KEY",
            text(&[""]),
            "must not be empty; fastpubsub generate_secret_key makes one",
        ),
        ("DATABASE_ECHO", text(&[HIDDEN, "", "2"]), boolean),
        (
            "DATABASE_POOL_SIZE",
            beyond(1, 1000),
            "must be a whole number from 1 to 1000",
        ),
        (
            "DATABASE_MAX_OVERFLOW",
            beyond(0, 1000),
            "must be a whole number from 0 to 1000",
        ),
        ("DATABASE_POOL_PRE_PING", text(&[HIDDEN]), boolean),
        (
            "LOG_LEVEL",
            text(&[HIDDEN, ""]),
            "must be one of debug, info, warning, error, critical",
        ),
        (
            "LOG_FORMATTER",
            text(&[HIDDEN, "", "xml"]),
            "must be json, logfmt or text",
        ),
        ("SUBSCRIPTION_MAX_ATTEMPTS", beyond(1, MAX), POSITIVE),
        ("SUBSCRIPTION_BACKOFF_MIN_SECONDS", beyond(1, MAX), POSITIVE),
        ("SUBSCRIPTION_BACKOFF_MAX_SECONDS", beyond(1, MAX), POSITIVE),
        ("API_DEBUG", text(&[HIDDEN]), boolean),
        (
            "API_HOST",
            text(&[HIDDEN, "", "localhost", "127.0.0.1:80"]),
            "must be an IP address, such as 127.0.0.1 or ::",
        ),
        (
            "API_PORT",
            beyond(0, 65535),
            "must be a whole number from 0 to 65535",
        ),
        (
            "API_NUM_WORKERS",
            beyond(1, 512),
            "must be a whole number from 1 to 512",
        ),
        (
            "API_MAX_BODY_BYTES",
            beyond(1024, 104_857_600),
            "must be a whole number from 1024 to 104857600",
        ),
        (
            "API_MAX_MESSAGE_BYTES",
            beyond(2, 104_857_600),
            "must be a whole number from 2 to 104857600",
        ),
        (
            "API_MAX_BODY_BYTES_IN_FLIGHT",
            beyond(1024, 17_179_869_184),
            "must be a whole number from 1024 to 17179869184",
        ),
        (
            "API_MAX_ANSWER_BYTES_IN_FLIGHT",
            beyond(1024, 17_179_869_184),
            "must be a whole number from 1024 to 17179869184",
        ),
        (
            "API_MAX_ANSWER_BYTES",
            beyond(1024, 104_857_600),
            "must be a whole number from 1024 to 104857600",
        ),
        (
            "API_MAX_CONNECTIONS",
            beyond(1, 1_000_000),
            "must be a whole number from 1 to 1000000",
        ),
        (
            "API_CORS_ORIGINS",
            text(&[HIDDEN, "", "example.com", "https://a/", "https://a,*"]),
            "must be * or origins such as https://app.example.com, separated by commas",
        ),
        (
            "API_SHUTDOWN_TIMEOUT_SECONDS",
            beyond(0, 3600),
            "must be a whole number from 0 to 3600",
        ),
        (
            "CLEANUP_ACKED_MESSAGES_OLDER_THAN_SECONDS",
            beyond(1, MAX),
            POSITIVE,
        ),
        (
            "CLEANUP_STUCK_MESSAGES_LOCK_TIMEOUT_SECONDS",
            beyond(1, 43200),
            "must be a whole number from 1 to 43200",
        ),
        (
            "IDEMPOTENCY_WINDOW_SECONDS",
            beyond(60, 604_800),
            "must be a whole number from 60 to 604800",
        ),
        ("AUTH_ENABLED", text(&[HIDDEN]), boolean),
        (
            "AUTH_ALGORITHM",
            text(&[HIDDEN, "none", "RS256"]),
            "must be one of HS256, HS384, HS512",
        ),
        (
            "AUTH_ACCESS_TOKEN_EXPIRE_MINUTES",
            beyond(1, 525_600),
            "must be a whole number from 1 to 525600",
        ),
        (
            "DROP_IN",
            text(&[HIDDEN, ""]),
            "must be one of pyqueue, broker, pulsar",
        ),
        (
            "BROKER_AUTH_MODE",
            text(&[HIDDEN, ""]),
            "must be one of none, apikey, bearer",
        ),
        (
            "BROKER_API_KEY",
            text(&[""]),
            "must not be empty; fastpubsub generate_secret_key makes one",
        ),
        (
            "BROKER_VISIBILITY_TIMEOUT_SEC",
            beyond(1, 43200),
            "must be a whole number from 1 to 43200",
        ),
        (
            "BROKER_MAX_RETRIES",
            beyond(0, 1_000_000),
            "must be a whole number from 0 to 1000000",
        ),
        (
            "BROKER_BACKOFF_STRATEGY",
            text(&[HIDDEN, "", "none"]),
            "must be one of fixed, linear, exponential",
        ),
        (
            "BROKER_BACKOFF_BASE_MS",
            beyond(1, 3_600_000),
            "must be a whole number from 1 to 3600000",
        ),
        (
            "BROKER_DLQ_SUFFIX",
            text(&["", "a b", "/", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"]),
            "must be 1 to 32 characters without space, control characters or /, such as .DLQ",
        ),
        (
            "BROKER_RATE_LIMIT",
            beyond(0, 1_000_000_000),
            "must be a whole number from 0 to 1000000000",
        ),
        (
            "BROKER_LISTEN",
            text(&[HIDDEN, "", "8080"]),
            "must be an address and a port, such as 0.0.0.0:8001",
        ),
        (
            "PULSAR_HTTP_PORT",
            text(&[HIDDEN, "", "65536"]),
            "must be a whole number from 0 to 65535",
        ),
        (
            "PULSAR_LISTEN",
            text(&[HIDDEN, "", "8080"]),
            "must be an address and a port, such as 0.0.0.0:8001",
        ),
        (
            "PULSAR_HOT_TIER_RETENTION",
            beyond(0, 604_800),
            "must be a whole number from 0 to 604800",
        ),
        (
            "PULSAR_MAX_MESSAGES_PER_TOPIC",
            beyond(1, 10_000_000),
            "must be a whole number from 1 to 10000000",
        ),
        (
            "PULSAR_MAX_CONNECTIONS_PER_INSTANCE",
            beyond(1, 1_000_000),
            "must be a whole number from 1 to 1000000",
        ),
        (
            "PULSAR_MAX_MESSAGE_SIZE",
            beyond(1, 10_485_760),
            "must be a whole number from 1 to 10485760",
        ),
        (
            "PULSAR_RATE_LIMIT_PER_CLIENT",
            beyond(0, 1_000_000_000),
            "must be a whole number from 0 to 1000000000",
        ),
        (
            "PULSAR_JWT_ENABLED",
            text(&[HIDDEN, "", "maybe"]),
            "must be true or false",
        ),
        (
            "PULSAR_JWT_SECRET_KEY",
            text(&[""]),
            "must not be empty; fastpubsub generate_secret_key makes one",
        ),
        (
            "PYQUEUE_MAX_MESSAGE_SIZE",
            beyond(1, 10_485_760),
            "must be a whole number from 1 to 10485760",
        ),
        (
            "PYQUEUE_DEFAULT_VISIBILITY_TIMEOUT",
            beyond(1, 43200),
            "must be a whole number from 1 to 43200",
        ),
        (
            "PYQUEUE_MAX_RECEIVE_COUNT",
            beyond(0, 2_147_483_646),
            "must be a whole number from 0 to 2147483646",
        ),
        (
            "PYQUEUE_API_V1_PREFIX",
            text(&[HIDDEN, "", "/", "v1", "/a b", "/{id}", "//v1"]),
            "must be a path such as /api/v1",
        ),
        (
            "PYQUEUE_LISTEN",
            text(&[
                HIDDEN,
                "",
                "8001",
                "example.com:80",
                "127.0.0.1",
                "127.0.0.1:99999",
            ]),
            "must be an address and a port, such as 0.0.0.0:8001",
        ),
    ]
}

fn flag(name: &str) -> String {
    format!("--{}", name.to_lowercase().replace('_', "-"))
}

#[tokio::test]
async fn a_bad_value_of_a_variable_is_one_line_that_names_it_and_its_range() {
    for (name, values, expected) in bad_values() {
        for value in values {
            let variable = format!("FASTPUBSUB_{name}");
            let sandbox = Sandbox::new().with(&variable, &value);

            let line = sandbox.run(&[PROBE]).await.fails(2);

            assert_eq!(
                line,
                format!("{variable} ({}) {expected}", flag(name)),
                "{value:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_bad_value_of_a_flag_is_told_like_that_of_a_variable() {
    let sandbox = Sandbox::new();
    for (name, values, expected) in bad_values() {
        for value in values {
            let argument = format!("{}={value}", flag(name));

            let line = sandbox.run(&[PROBE, &argument]).await.fails(2);

            let expected = format!("FASTPUBSUB_{name} ({}) {expected}", flag(name));
            assert_eq!(line, expected, "{value:?}");
        }
    }
}

#[tokio::test]
async fn an_empty_directory_is_told_to_need_a_value() {
    for name in ["DATA_DIR", "PG_BIN"] {
        let variable = format!("FASTPUBSUB_{name}");
        let sandbox = Sandbox::new().with(&variable, "");

        let line = sandbox.run(&[PROBE]).await.fails(2);

        assert_eq!(line, format!("{variable} ({}) needs a value", flag(name)));
    }
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_one_line() {
    for (variables, expected) in [
        (
            [
                ("SUBSCRIPTION_BACKOFF_MIN_SECONDS", "10"),
                ("SUBSCRIPTION_BACKOFF_MAX_SECONDS", "9"),
            ],
            "FASTPUBSUB_SUBSCRIPTION_BACKOFF_MAX_SECONDS (9) must not be less than \
             FASTPUBSUB_SUBSCRIPTION_BACKOFF_MIN_SECONDS (10)",
        ),
        (
            [
                ("API_MAX_BODY_BYTES", "2048"),
                ("API_MAX_MESSAGE_BYTES", "2049"),
            ],
            "FASTPUBSUB_API_MAX_MESSAGE_BYTES (2049) must not be more than \
             FASTPUBSUB_API_MAX_BODY_BYTES (2048)",
        ),
    ] {
        let mut sandbox = Sandbox::new();
        for (name, value) in variables {
            sandbox = sandbox.with(&format!("FASTPUBSUB_{name}"), value);
        }

        let line = sandbox.run(&[PROBE]).await.fails(2);

        assert_eq!(line, expected);
    }
}

#[tokio::test]
async fn secrets_that_everybody_knows_are_refused_but_in_development() {
    for (name, value) in [
        ("FASTPUBSUB_BROKER_API_KEY", "supersecretkey"),
        ("FASTPUBSUB_BROKER_JWT_SECRET", "change_me"),
        ("FASTPUBSUB_BROKER_API_KEY", "change_me"),
    ] {
        let line = Sandbox::new()
            .with(name, value)
            .run(&[PROBE])
            .await
            .fails(2);
        assert!(
            line.starts_with(&format!("{name} is that of the broker's README")),
            "{line}"
        );
        assert!(!line.contains(value), "{line}");
    }
    let drop_in = Sandbox::new()
        .with("FASTPUBSUB_DROP_IN", "broker")
        .with("JWT_SECRET", "change_me");
    let line = drop_in.run(&[PROBE]).await.fails(2);
    assert!(line.starts_with("FASTPUBSUB_BROKER_JWT_SECRET"), "{line}");
    // the next thing to be wrong is told
    let allowed = Sandbox::new()
        .with("FASTPUBSUB_BROKER_API_KEY", "supersecretkey")
        .with("FASTPUBSUB_BROKER_APP_ENV", "Development")
        .with("FASTPUBSUB_SUBSCRIPTION_BACKOFF_MIN_SECONDS", "400");
    let line = allowed.run(&[PROBE]).await.fails(2);
    assert!(
        line.starts_with("FASTPUBSUB_SUBSCRIPTION_BACKOFF_MAX_SECONDS"),
        "{line}"
    );
}

#[tokio::test]
async fn no_door_is_open_beside_a_closed_one() {
    let sandbox = Sandbox::new()
        .with_auth()
        .with("FASTPUBSUB_BROKER_AUTH_MODE", "none");
    let line = sandbox.run(&[PROBE]).await.fails(2);
    assert!(
        line.contains("FASTPUBSUB_BROKER_AUTH_MODE is none"),
        "{line}"
    );
    assert!(line.contains("FASTPUBSUB_AUTH_ENABLED"), "{line}");
    let sandbox = Sandbox::new().with("FASTPUBSUB_BROKER_AUTH_MODE", "bearer");
    let line = sandbox.run(&[PROBE]).await.fails(2);
    assert!(line.contains("FASTPUBSUB_BROKER_JWT_SECRET"), "{line}");
}

/// Original's defect 14.
#[tokio::test]
async fn a_missing_or_short_key_is_refused_without_showing_it() {
    let short = format!("{HIDDEN}{}", "x".repeat(24));
    for (enabled, key, expected) in [
        (
            "true",
            None,
            "FASTPUBSUB_AUTH_ENABLED needs FASTPUBSUB_AUTH_SECRET_KEY, at least 32 bytes",
        ),
        (
            "true",
            Some(&*short),
            "FASTPUBSUB_AUTH_SECRET_KEY must be at least 32 bytes, it has 31",
        ),
        (
            "false",
            Some(HIDDEN),
            "FASTPUBSUB_AUTH_SECRET_KEY must be at least 32 bytes, it has 7",
        ),
    ] {
        let mut sandbox = Sandbox::new().with("FASTPUBSUB_AUTH_ENABLED", enabled);
        if let Some(key) = key {
            sandbox = sandbox.with("FASTPUBSUB_AUTH_SECRET_KEY", key);
        }

        let line = sandbox.run(&[PROBE]).await.fails(2);

        assert!(line.starts_with(expected), "{line}");
        assert!(line.contains("fastpubsub generate_secret_key"), "{line}");
        assert!(!line.contains(HIDDEN), "{line}");
    }
}

#[tokio::test]
async fn booleans_are_spelled_in_several_ways() {
    for (value, enabled) in [
        ("true", true),
        ("TRUE", true),
        ("1", true),
        ("yes", true),
        ("On", true),
        ("t", true),
        ("y", true),
        ("false", false),
        ("0", false),
        ("no", false),
        ("OFF", false),
        ("f", false),
        ("n", false),
    ] {
        let by_variable = Sandbox::without_postgres().with("FASTPUBSUB_AUTH_ENABLED", value);
        let by_flag = Sandbox::without_postgres();

        // without a key, enabling is an error
        let expected = if enabled { Some(2) } else { Some(1) };
        assert_eq!(by_variable.run(&[PROBE]).await.code, expected, "{value}");
        let ran = by_flag.run(&[PROBE, "--auth-enabled", value]).await;
        assert_eq!(ran.code, expected, "{value}: {ran:?}");
    }
}

/// Contract point 12.
#[tokio::test]
async fn a_python_log_format_is_taken_with_one_warning() {
    let format = "%(asctime)s %(levelname)s %(message)s";
    let sandbox = Sandbox::without_postgres().with("FASTPUBSUB_LOG_FORMATTER", format);

    let ran = sandbox.run(&["db-migrate"]).await;

    assert_eq!(ran.code, Some(1));
    let warnings: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(warnings.len(), 2, "{ran:?}");
    assert!(warnings[0].contains("level=warn"), "{ran:?}");
    assert!(warnings[0].contains("FASTPUBSUB_LOG_FORMATTER"), "{ran:?}");
}
