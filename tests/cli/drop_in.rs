//! Standing in for another system: its variables, its address, its files.

use tokio::net::TcpListener;

use super::{HIDDEN, Sandbox};
use crate::support::answer;
use crate::support::database::TestDatabase;

const KEYS: &str = r#"{"sesame": {"queues": {"*": ["read"]}}}"#;

/// The address of a line of the log that ends so.
fn address_in(log: &str, ending: &str) -> String {
    let line = log.lines().find(|line| line.contains(ending)).unwrap();
    let from = line.find("http://").unwrap();
    line[from..].split([' ', '"']).next().unwrap().to_owned()
}

async fn status(url: &str, key: &str) -> u16 {
    let request = reqwest::Client::new().get(url).header("X-API-Key", key);
    answer(request).await.status
}

#[tokio::test]
async fn a_system_s_own_variables_and_files_are_taken() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url())
        .with("FASTPUBSUB_DROP_IN", "PyQueue")
        .with("FASTPUBSUB_API_PORT", "0")
        .with("HOST", "localhost")
        .with("PORT", "0")
        .with("API_V1_PREFIX", "/v7")
        .with("PYQUEUE_API_KEYS_JSON", KEYS)
        .with("STORAGE_BACKEND", "sqlite")
        .with("DEBUG", "true")
        .with("QUEUE_DATA_DIR", "");
    std::fs::create_dir(sandbox.dir.join("config")).unwrap();
    let file = KEYS.replace("sesame", "of the file");
    std::fs::write(sandbox.dir.join("config/api_keys.json"), file).unwrap();

    let mut server = sandbox.serve(&[]).await;
    let log = server.logged("for PyQueue").await;

    let door = address_in(&log, "for PyQueue");
    assert!(door.starts_with("http://127.0.0.1:"), "{door}");
    assert_eq!(status(&format!("{door}/v7/queues"), "sesame").await, 200);
    assert_eq!(
        status(&format!("{door}/v7/queues"), "of the file").await,
        200
    );
    assert_eq!(status(&format!("{door}/v7/queues"), "other").await, 401);
    server.get("/liveness").await.expect(200);
    let without_effect = "own: FASTPUBSUB_PYQUEUE_DEBUG, FASTPUBSUB_PYQUEUE_STORAGE_BACKEND";
    assert_eq!(log.matches("without effect").count(), 1, "{log}");
    assert!(log.contains(without_effect), "{log}");
    assert!(
        !log.contains("sesame") && !log.contains("of the file"),
        "{log}"
    );
}

#[tokio::test]
async fn the_native_api_is_not_served_where_it_has_no_port_of_its_own() {
    let database = TestDatabase::create().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let sandbox = Sandbox::over(&database.url())
        .with("FASTPUBSUB_DROP_IN", "pyqueue")
        .with("PORT", &port);

    let started = sandbox.start(sandbox.command(&["server"]));
    let server = sandbox.listening(started).await;

    let url = format!("http://127.0.0.1:{port}");
    assert_eq!(status(&format!("{url}/health"), "").await, 200);
    assert!(
        server.log().contains("the native API is not served"),
        "{}",
        server.log()
    );
    let native = reqwest::get(format!("{url}/liveness")).await.unwrap();
    assert_eq!(native.status(), 404);
}

#[tokio::test]
async fn what_is_wrong_is_one_line_that_names_the_setting() {
    let database = TestDatabase::create().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = "FASTPUBSUB_PYQUEUE_API_KEYS_FILE";
    for (name, value, code, expected) in [
        (
            file,
            "missing.json",
            2,
            "FASTPUBSUB_PYQUEUE_API_KEYS_FILE (missing.json): No such file",
        ),
        (
            file,
            "keys.json",
            2,
            "FASTPUBSUB_PYQUEUE_API_KEYS_FILE (keys.json) gives the permission",
        ),
        (
            "FASTPUBSUB_PYQUEUE_LISTEN",
            &address,
            1,
            "(FASTPUBSUB_PYQUEUE_LISTEN): Address already in use",
        ),
    ] {
        let sandbox = Sandbox::over(&database.url())
            .with("FASTPUBSUB_API_PORT", "0")
            .with(name, value);
        let keys = format!(r#"{{"{HIDDEN}": {{"queues": {{"q": ["open"]}}}}}}"#);
        std::fs::write(sandbox.dir.join("keys.json"), keys).unwrap();

        let line = sandbox.run(&["server"]).await.fails(code);

        assert!(line.contains(expected), "{line}");
        assert!(!line.contains(HIDDEN), "{line}");
    }
    let sandbox = Sandbox::over(&database.url())
        .with("FASTPUBSUB_DROP_IN", "pyqueue")
        .with("PORT", "many");
    let line = sandbox.run(&["server"]).await.fails(2);
    assert!(line.starts_with("FASTPUBSUB_PYQUEUE_LISTEN"), "{line}");
}

#[tokio::test]
async fn the_broker_s_example_settings_are_taken_and_its_secrets_stay_out_of_the_log() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url())
        .with("FASTPUBSUB_DROP_IN", "broker")
        .with("FASTPUBSUB_API_PORT", "0")
        .with("FASTPUBSUB_LOG_LEVEL", "debug")
        .with("APP_HOST", "127.0.0.1")
        .with("APP_PORT", "0")
        .with("APP_ENV", "development")
        .with("AUTH_MODE", "apikey")
        .with("API_KEY", "supersecretkey")
        .with("JWT_SECRET", "change_me")
        .with("MAX_RETRIES", "3")
        .with("STORE_BACKEND", "redis")
        .with("REDIS_URL", "redis://redis:6379/0");

    let mut server = sandbox.serve(&[]).await;
    let log = server.logged("for Message Broker").await;

    let door = address_in(&log, "for Message Broker");
    let queue = format!("{door}/api/v1/queues/q/stats");
    let status = async |key: &str| {
        let request = reqwest::Client::new().get(&queue).bearer_auth(key);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status("supersecretkey").await, 404);
    assert_eq!(status("change_me").await, 401);
    server.get("/liveness").await.expect(200);
    let without_effect = "own: FASTPUBSUB_BROKER_REDIS_URL, FASTPUBSUB_BROKER_STORE_BACKEND";
    assert!(log.contains(without_effect), "{log}");
    let log = server.stop().await;
    assert!(
        !log.contains("supersecretkey") && !log.contains("change_me"),
        "{log}"
    );
}

#[tokio::test]
async fn the_proxy_s_own_names_are_taken_bare_and_with_its_prefix() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url())
        .with("FASTPUBSUB_DROP_IN", "pulsar")
        .with("FASTPUBSUB_API_PORT", "0")
        .with("PULSAR_HTTP_PORT", "0")
        .with("HTTP_PORT", "1")
        .with("MAX_MESSAGE_SIZE", "50")
        .with("PULSAR_JWT_ENABLED", "true")
        .with("JWT_SECRET_KEY", "of the proxy")
        .with("APP_NAME", "proxy")
        .with("VALKEY_URL", "redis://valkey")
        .with("PULSAR_STORAGE_BACKEND", "memory");

    let mut server = sandbox.serve(&[]).await;
    let log = server.logged("for Pulsar Proxy").await;

    let door = address_in(&log, "for Pulsar Proxy").replace("0.0.0.0", "127.0.0.1");
    assert_eq!(status(&format!("{door}/health"), "").await, 200);
    let poll = format!("{door}/api/v1/messages/poll?topics=a");
    let refused = reqwest::get(poll).await.unwrap();
    assert_eq!(refused.status(), 401);
    server.get("/liveness").await.expect(200);
    let without_effect = "own: FASTPUBSUB_PULSAR_APP_NAME, FASTPUBSUB_PULSAR_STORAGE_BACKEND, \
                          FASTPUBSUB_PULSAR_VALKEY_URL";
    assert!(log.contains(without_effect), "{log}");
    assert!(!log.contains("of the proxy"), "{log}");
    server.stop().await;
}
