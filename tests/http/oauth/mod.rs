//! `/oauth/token` and what the tokens it issues allow.

mod issue;
mod refuse;
mod revoke;
mod scopes;
mod slow;
mod table;
mod verify;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::{Answer, SECRET_KEY, TestApp, answer};

/// Authentication on; `TestApp::start_with` them and no request carries a token by itself.
pub(in crate::http) const AUTH: [&str; 4] =
    ["--auth-enabled", "true", "--auth-secret-key", SECRET_KEY];

/// A token request in the JSON form of the Python original.
async fn request_json(app: &TestApp, id: &str, secret: &str) -> Answer {
    let body = json!({"client_id": id, "client_secret": secret});
    app.post("/oauth/token", body).await
}

/// A token request in the form of RFC 6749, with or without HTTP Basic.
async fn request_form(
    app: &TestApp,
    fields: &[(&str, &str)],
    basic: Option<(&str, &str)>,
) -> Answer {
    let mut request = app
        .request("POST", "/oauth/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(serde_urlencoded::to_string(fields).unwrap());
    if let Some((id, secret)) = basic {
        request = request.basic_auth(id, Some(secret));
    }
    answer(request).await
}

/// A token with fewer scopes than its client.
async fn narrowed(app: &TestApp, (id, secret): &(String, String), scope: &str) -> String {
    let fields = [("grant_type", "client_credentials"), ("scope", scope)];
    let answer = request_form(app, &fields, Some((id, secret))).await;
    access_token(&answer.expect(200))
}

fn access_token(answer: &Answer) -> String {
    let token = answer.json();
    token["access_token"].as_str().unwrap().to_owned()
}

/// Part 0 (header) or 1 (claims) of a token.
fn part(token: &str, number: usize) -> Value {
    let encoded = token.split('.').nth(number).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
}

/// What the Python original puts into a token of a client that may do everything.
pub(in crate::http) fn claims(client_id: &str) -> Value {
    let now = Utc::now().timestamp();
    json!({"sub": client_id, "scope": "*", "ver": 1, "iat": now, "exp": now + 600})
}

pub(in crate::http) fn sign(algorithm: Algorithm, key: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(key.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
}
