//! Tokens (RFC 7519, HS256) that somebody else issues, who has the same secret.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

use crate::config::Secret;

/// What a token says, as far as it is valid now.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Whom it names.
    pub subject: Option<String>,
    /// What it lets do; none where it does not say: everything.
    pub scopes: Option<String>,
    /// The topics that it is for; none where it does not say: all.
    pub topics: Option<Vec<String>>,
}

/// Read a token; none where it is not valid, or not any more. One algorithm only: a token that names another,
/// or none, is not valid.
#[must_use]
pub fn verify(secret: &Secret, token: &str) -> Option<Claims> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.leeway = 0;
    validation.validate_nbf = true;
    // whom else it is for is not our affair
    validation.validate_aud = false;
    // a token ends with the second that it names
    validation.reject_tokens_expiring_in_less_than = 1;
    let key = DecodingKey::from_secret(secret.reveal().as_bytes());
    let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation);
    let decoded = decoded.ok()?;
    // what must be understood (RFC 7515, section 4.1.11) is not
    if decoded.header.crit.is_some() {
        return None;
    }
    let claims = decoded.claims;
    let subject = claims.get("sub").and_then(Value::as_str);
    Some(Claims {
        subject: subject.map(str::to_owned),
        scopes: claims.get("scope").map(|claim| match claim {
            Value::String(text) => text.clone(),
            // as some write it
            other => texts(other).join(" "),
        }),
        topics: claims.get("topics").map(texts),
    })
}

/// The texts of a list; of anything else none, which allows nothing.
fn texts(claim: &Value) -> Vec<String> {
    let list = claim.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}
