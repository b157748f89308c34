//! Passwords and PINs, kept as argon2 hashes; hashing runs on blocking threads, a few at a time.

use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use crate::server::config::Secret;

/// Each takes some 20 MB and a core for tens of milliseconds.
const AT_ONCE: usize = 2;
/// Waiting longer than this for a turn is refused instead.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Of these, more are refused at once.
const WAITING: usize = 64;

/// There is no turn for another hash now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many logins at once; try again in a moment")]
pub struct Busy;

/// Hashes and checks.
#[derive(Clone, Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    /// Checked when the user is unknown, so that the answer takes as long.
    nobody: Arc<str>,
}

/// The hash of a password, as it is kept. Blocks for tens of milliseconds.
///
/// # Errors
/// When the system has no randomness to give.
pub fn hash_now(password: &str) -> Result<String, String> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| format!("the password cannot be hashed: {error}"))
}

pub(super) fn verify_now(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

impl Passwords {
    /// Ready to use. Blocks for tens of milliseconds.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new() -> Result<Passwords, String> {
        let nobody = hash_now(Secret::random()?.reveal())?;
        Ok(Passwords {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            queue: Arc::new(Semaphore::new(WAITING)),
            nobody: nobody.into(),
        })
    }

    /// Waits for a turn to hash or check.
    ///
    /// # Errors
    /// When too many wait already.
    pub async fn turn(&self) -> Result<Turn, Busy> {
        let _place = self.queue.try_acquire().map_err(|_| Busy)?;
        let turn = tokio::time::timeout(LONGEST_WAIT, self.turns.clone().acquire_owned()).await;
        let permit = turn.map_err(|_| Busy)?.map_err(|_| Busy)?;
        Ok(Turn { permit, nobody: self.nobody.clone() })
    }
}

/// The right to hash or check once.
#[derive(Debug)]
pub struct Turn {
    permit: OwnedSemaphorePermit,
    nobody: Arc<str>,
}

impl Turn {
    /// Whether the password belongs to the hash; without a hash it takes as long and does not.
    ///
    /// # Errors
    /// When the process is stopping.
    pub async fn verify(self, password: &str, hash: Option<&str>) -> Result<bool, Busy> {
        let known = hash.is_some();
        let hash: Arc<str> = hash.map_or_else(|| self.nobody.clone(), Arc::from);
        let password = Zeroizing::new(password.to_owned());
        let right = self.run(move || verify_now(&password, &hash)).await?;
        Ok(known && right)
    }

    /// The hash of a password.
    ///
    /// # Errors
    /// When the process is stopping, or there is no randomness.
    pub async fn hash(self, password: &str) -> Result<String, Busy> {
        let password = Zeroizing::new(password.to_owned());
        self.run(move || hash_now(&password)).await?.map_err(|_| Busy)
    }

    async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let done = tokio::task::spawn_blocking(move || {
            let _permit = self.permit;
            work()
        });
        done.await.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_passes() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.turn().await.unwrap().hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$argon2id$") && !hash.contains("horse"));
        assert!(passwords.turn().await.unwrap().verify("correct horse", Some(&hash)).await.unwrap());
        assert!(!passwords.turn().await.unwrap().verify("wrong horse", Some(&hash)).await.unwrap());
        assert!(!passwords.turn().await.unwrap().verify("correct horse", None).await.unwrap());
    }
}
