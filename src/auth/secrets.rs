//! Client secrets: making, hashing and checking them.
//!
//! A secret is random, so a fast hash is enough: `sha256$` and the digest in hex. The Python
//! original's argon2 hashes are checked too.

use std::sync::LazyLock;

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

const TAG: &str = "sha256$";

static ARGON2_RUNS: Semaphore = Semaphore::const_new(2);

/// `bytes` random bytes in hex.
#[must_use]
pub fn generate(bytes: usize) -> String {
    (0..bytes)
        .map(|_| format!("{:02x}", rand::random::<u8>()))
        .collect()
}

/// The hash under which a secret is stored.
#[must_use]
pub fn hash(secret: &str) -> String {
    let digest = Sha256::digest(secret);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{TAG}{hex}")
}

/// Whether the secret is the one that was hashed. Takes as long for no hash at all, so that an
/// unknown client cannot be told from a wrong secret.
pub async fn verify(secret: String, stored: Option<String>) -> bool {
    static NOBODY: LazyLock<String> = LazyLock::new(|| hash(&generate(16)));

    let known = stored.is_some();
    let stored = stored.unwrap_or_else(|| NOBODY.clone());
    let equal = if stored.starts_with(TAG) {
        hash(&secret).as_bytes().ct_eq(stored.as_bytes()).into()
    } else {
        // argon2 takes tens of milliseconds and 64 MiB by design
        let _few_at_a_time = ARGON2_RUNS.acquire().await;
        tokio::task::spawn_blocking(move || {
            PasswordHash::new(&stored).is_ok_and(|stored| {
                Argon2::default()
                    .verify_password(secret.as_bytes(), &stored)
                    .is_ok()
            })
        })
        .await
        .unwrap_or(false)
    };
    known && equal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_secret_verifies() {
        let secret = generate(16);

        assert_eq!(secret.len(), 32);
        assert!(verify(secret.clone(), Some(hash(&secret))).await);
        assert!(!verify("wrong".to_owned(), Some(hash(&secret))).await);
        assert!(!verify(secret.clone(), Some("garbage".to_owned())).await);
        assert!(!verify(secret, None).await);
    }

    #[tokio::test]
    async fn the_python_originals_argon2_hashes_verify() {
        // pwdlib's recommended parameters, secret "s3cret"
        let stored = "$argon2id$v=19$m=65536,t=3,p=4$MDEyMzQ1Njc4OWFiY2RlZg$\
                      a7FoYtlzPIwfy3y3ORktIs3turwdlVrwKYvt43RfjQ4";
        assert!(verify("s3cret".to_owned(), Some(stored.to_owned())).await);
        assert!(!verify("other".to_owned(), Some(stored.to_owned())).await);
    }
}
