//! Signatures of pushed messages, as Standard Webhooks has them (<https://www.standardwebhooks.com>).

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What a secret begins with; base64 follows.
const PREFIX: &str = "whsec_";

/// The keys that sign what is pushed to an endpoint, the newest first.
#[derive(Clone)]
pub(super) struct Keys(Vec<Hmac<Sha256>>);

impl Keys {
    /// Of secrets. One that is none, which the database does not let in, signs nothing.
    pub(super) fn new(secrets: &[String]) -> Self {
        let key = |secret: &String| {
            let key = BASE64_STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
            Hmac::new_from_slice(&key).ok()
        };
        Self(secrets.iter().filter_map(key).collect())
    }

    /// The signatures of a body: one by each key, so that a receiver that knows only one of them is content.
    pub(super) fn sign(&self, message_id: &str, timestamp: i64, body: &[u8]) -> String {
        let signatures = self.0.iter().map(|key| {
            let mut mac = key.clone();
            mac.update(format!("{message_id}.{timestamp}.").as_bytes());
            mac.update(body);
            let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
            format!("v1,{signature}")
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the published libraries test themselves with.
    #[test]
    fn a_signature_is_that_of_the_published_libraries() {
        let keys = Keys::new(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()]);

        let signature = keys.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );

        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_key_signs_and_what_is_no_secret_does_not() {
        let secrets = ["whsec_AAAA", "whsec_BBBB", "whsec_?", "AAAA"];
        let keys = Keys::new(&secrets.map(str::to_owned));

        let signatures = keys.sign("id", 0, b"{}");

        let each: Vec<&str> = signatures.split(' ').collect();
        assert_eq!(each.len(), 2);
        assert_ne!(each[0], each[1]);
        assert!(each.iter().all(|one| one.starts_with("v1,")));
    }
}
