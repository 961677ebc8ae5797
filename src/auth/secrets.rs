//! Client secrets: making, hashing and checking them.
//!
//! A secret is random, so a fast hash is enough: `sha256$` and the digest in hex. The Python
//! original's argon2 hashes are checked too, until their first good login replaces them.

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::slow_logins::{self, TooMany};

const TAG: &str = "sha256$";

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

/// Whether a stored hash is the fast one.
#[must_use]
pub fn is_fast(stored: &str) -> bool {
    stored.starts_with(TAG)
}

/// Whether a client's secret is the one that was hashed.
///
/// # Errors
/// When too many logins of slow hashes are waiting already.
pub async fn verify(client_id: Uuid, secret: String, stored: String) -> Result<bool, TooMany> {
    if is_fast(&stored) {
        return Ok(hash(&secret).as_bytes().ct_eq(stored.as_bytes()).into());
    }
    // argon2 takes tenths of a second and 64 MiB by design
    let turn = slow_logins::turn(client_id).await?;
    let checked = tokio::task::spawn_blocking(move || {
        // it runs on when the client goes away, and so its turn goes with it
        let _turn = turn;
        PasswordHash::new(&stored).is_ok_and(|stored| {
            Argon2::default()
                .verify_password(secret.as_bytes(), &stored)
                .is_ok()
        })
    });
    Ok(checked.await.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn verifies(secret: &str, stored: &str) -> bool {
        let checked = verify(Uuid::now_v7(), secret.to_owned(), stored.to_owned());
        checked.await.is_ok_and(|verified| verified)
    }

    #[tokio::test]
    async fn only_the_right_secret_verifies() {
        let secret = generate(16);

        assert_eq!(secret.len(), 32);
        assert!(verifies(&secret, &hash(&secret)).await);
        assert!(!verifies("wrong", &hash(&secret)).await);
        assert!(!verifies(&secret, "garbage").await);
    }

    #[tokio::test]
    async fn the_python_originals_argon2_hashes_verify() {
        // pwdlib's recommended parameters, secret "s3cret"
        let stored = "$argon2id$v=19$m=65536,t=3,p=4$MDEyMzQ1Njc4OWFiY2RlZg$\
                      a7FoYtlzPIwfy3y3ORktIs3turwdlVrwKYvt43RfjQ4";
        assert!(!is_fast(stored));
        assert!(verifies("s3cret", stored).await);
        assert!(!verifies("other", stored).await);
    }
}
