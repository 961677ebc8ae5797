//! What is logged at the most talkative settings holds no secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::logs::{PAYLOAD, client, send};
use super::{KEY, Sandbox, Server};
use crate::support::answer;
use crate::support::database::TestDatabase;

const DATABASE_PASSWORD: &str = "database-password-7f3a";

/// Original's defect 29.
#[tokio::test]
async fn no_secret_is_logged_even_at_debug_with_database_echo() {
    let database = TestDatabase::create().await;
    let user = format!("postgres:{DATABASE_PASSWORD}@");
    let url = database.url().replacen("postgres@", &user, 1);
    for format in ["json", "logfmt", "text"] {
        let sandbox = Sandbox::over(&url)
            .with_auth()
            .with("FASTPUBSUB_LOG_LEVEL", "debug")
            .with("FASTPUBSUB_DATABASE_ECHO", "true")
            .with("FASTPUBSUB_LOG_FORMATTER", format);
        let server = sandbox.serve(&[]).await;
        let (id, secret, token) = client(&sandbox, &server).await;

        let told = tell_every_secret(&server, &id, &secret, &token).await;

        let created = sandbox.run(&["create_client", "n"]).await;
        let log = server.stop().await + &created.stderr;
        let signature = token.rsplit('.').next().unwrap();
        let secrets = [KEY, DATABASE_PASSWORD, PAYLOAD, &secret, signature];
        for secret in secrets.into_iter().chain(told.iter().map(String::as_str)) {
            assert!(!log.contains(secret), "{format} {secret}: {log}");
        }
        assert!(
            log.contains("pubsub.client_credentials("),
            "echo is on: {log}"
        );
        assert!(
            created.stderr.contains("pubsub.create_client("),
            "echo is on: {created:?}"
        );
    }
}

/// Send secrets in every place that takes one, well and badly formed. Returns those that were made
/// on the way, and the id of a message.
async fn tell_every_secret(
    server: &Server<'_>,
    id: &str,
    secret: &str,
    token: &str,
) -> [String; 4] {
    let some = Some(token);
    let topic = json!({"id": "t"});
    send(server, ("POST", "/topics"), some, "1", topic).await;
    let messages = json!([{"text": PAYLOAD}, 1]);
    send(server, ("POST", "/topics/t/messages"), some, "2", messages)
        .await
        .expect(422);
    let messages = json!([{"text": PAYLOAD}]);
    send(server, ("POST", "/topics/t/messages"), some, "3", messages)
        .await
        .expect(204);
    let message_id = settle_one(server, token).await;
    let body = json!({"name": "n", "scopes": "*", "api_key": true});
    let made = send(server, ("POST", "/clients"), some, "4", body)
        .await
        .expect(201)
        .json();
    let key = made["api_key"].as_str().unwrap().to_owned();
    for (key, status) in [(key.clone(), 200), (format!("{key}x"), 401)] {
        let request = server.request("GET", "/topics");
        let answer = answer(request.header("x-api-key", key)).await;
        answer.expect(status);
    }
    let made = made["secret"].as_str().unwrap().to_owned();
    let path = format!("/topics?access_token={token}&client_secret={secret}");
    send(server, ("GET", &path), some, "5", Value::Null)
        .await
        .expect(422);
    let path = format!("/{secret}/{token}");
    send(server, ("GET", &path), some, "6", Value::Null)
        .await
        .expect(404);
    send(
        server,
        ("GET", "/topics"),
        Some(&format!("{token}x")),
        "7",
        Value::Null,
    )
    .await
    .expect(401);

    let form = "application/x-www-form-urlencoded";
    let request = |media_type: &str, body: String| {
        let request = server.request("POST", "/oauth/token");
        answer(
            request
                .header("content-type", media_type.to_owned())
                .body(body),
        )
    };
    let fields = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    request(form, fields.clone()).await.expect(200);
    request(form, format!("{fields}&{fields}"))
        .await
        .expect(400);
    request(form, format!("{fields}&scope={secret}"))
        .await
        .expect(400);
    request(
        "application/json",
        format!("{{\"client_secret\": \"{secret}\""),
    )
    .await
    .expect(422);
    request(
        "application/json",
        json!({"client_id": 1, "client_secret": secret}).to_string(),
    )
    .await
    .expect(422);
    let request = server
        .request("POST", "/oauth/token")
        .header("content-type", form)
        .basic_auth(id, Some(secret))
        .body("grant_type=client_credentials");
    answer(request).await.expect(200);
    let basic = STANDARD.encode(format!("{id}:{secret}"));
    [basic, made, message_id, key]
}

/// Consume and ack a message; returns its id.
async fn settle_one(server: &Server<'_>, token: &str) -> String {
    let some = Some(token);
    let body = json!({"id": "s", "topic_id": "t"});
    send(server, ("POST", "/subscriptions"), some, "10", body).await;
    let body = json!([{"text": PAYLOAD}]);
    send(server, ("POST", "/topics/t/messages"), some, "11", body)
        .await
        .expect(204);
    let path = format!("/subscriptions/s/messages?consumer_id={PAYLOAD}");
    let list = send(server, ("GET", &path), some, "12", Value::Null).await;
    let id = list.expect(200).json()["data"][0]["id"].clone();
    let (acks, nacks) = ("/subscriptions/s/acks", "/subscriptions/s/nacks");
    send(server, ("POST", nacks), some, "13", json!([id, PAYLOAD]))
        .await
        .expect(422);
    send(server, ("POST", acks), some, "14", json!([id]))
        .await
        .expect(204);
    id.as_str().unwrap().to_owned()
}

/// Marked secrets where settings come from, and on the way of every kind of failure.
#[tokio::test]
async fn no_subcommand_prints_a_secret_whatever_it_is_asked() {
    const MARK: &str = "marked-secret";
    let key = format!("{MARK}-{}", "k".repeat(32));
    let urls = [
        format!("postgresql://u:{MARK}@127.0.0.1:1/d"),
        format!("postgresql+psycopg://u:{MARK}@127.0.0.1:1/d?sslpassword={MARK}"),
        format!("postgresql://u:{MARK}@h1,h2/d"),
        format!("postgresql://u:1/{MARK}@h/d"),
        format!("host=127.0.0.1 port=1 password={MARK} sslmode={MARK}"),
        format!("{MARK}://{MARK}"),
    ];
    let subcommands = [
        "db-migrate",
        "server",
        "cleanup_acked_messages",
        "cleanup_stuck_messages",
        "create_client",
        "generate_secret_key",
    ];
    let mut asked: Vec<Vec<&str>> = vec![
        vec![],
        vec!["--help"],
        vec!["-h"],
        vec!["--version"],
        vec!["help", "help"],
        vec!["no-such-command"],
        vec![MARK],
        vec!["serversmarked-secret"],
        vec!["server", "--no-such-flag"],
        vec!["server", "--api-port", MARK],
        vec!["server", "--auth-secret-kez", &key],
        vec!["--auth-secret-key", "", &key, "server"],
        vec!["server", &key],
        vec!["create_client", "n", "*", MARK],
        vec!["create_client", "n", "*", "true", &key],
        vec!["server", "--api-port"],
    ];
    for subcommand in &subcommands {
        asked.push(vec![subcommand]);
        asked.push(vec![
            "--log-level",
            "debug",
            "--database-echo",
            "true",
            subcommand,
        ]);
        asked.push(vec![subcommand, "--help"]);
        asked.push(vec![subcommand, "-h"]);
        asked.push(vec!["help", subcommand]);
    }
    let mut ran = 0;
    for (at, url) in urls.iter().enumerate() {
        let url = url.as_str();
        let values = [
            ("FASTPUBSUB_AUTH_SECRET_KEY", key.as_str()),
            ("FASTPUBSUB_DATABASE_URL", url),
            ("FASTPUBSUB_AUTH_ENABLED", "true"),
            ("FASTPUBSUB_API_PORT", "0"),
        ];
        let by_variable = values
            .iter()
            .fold(Sandbox::new(), |sandbox, (name, value)| {
                sandbox.with(name, value)
            });
        let by_lower_case = values
            .iter()
            .fold(Sandbox::new(), |sandbox, (name, value)| {
                sandbox.with(&name.to_lowercase(), value)
            });
        let by_file = Sandbox::new();
        let lines = values
            .iter()
            .map(|(name, value)| format!("{name}='{value}'\n"));
        std::fs::write(by_file.dir.join(".env"), lines.collect::<String>()).unwrap();
        for sandbox in [by_variable, by_lower_case, by_file] {
            // the other urls differ only where they are read
            let all = asked.iter().filter(|asked| at == 0 || asked.len() == 1);
            for arguments in all {
                let told = sandbox.run(arguments).await;
                ran += 1;
                let text = told.stdout + &told.stderr;
                assert!(!text.contains(MARK), "{arguments:?}: {text}");
                assert!(!text.is_empty(), "{arguments:?}");
            }
        }
    }
    assert!(ran > 150, "{ran}");
}
