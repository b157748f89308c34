//! How a store keeps payloads from whoever reads its disk: the hook, and AES-256-GCM behind it.

mod key_file;

use std::fmt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{cmac, rand};
use zeroize::Zeroizing;

use crate::StoreError;

pub use key_file::make_key_file;

/// Encrypts the payloads a store keeps.
///
/// A store calls it from its own threads, one piece at a time. What it seals must open in a later process, so the key
/// must outlive this one.
pub trait Sealer: Send + Sync + 'static {
    /// Encrypts `plain`, so that it opens with the same `context` alone: a context names one place in a store, and what
    /// is moved elsewhere must not open there. The same piece may be sealed many times.
    ///
    /// # Errors
    /// When it cannot be sealed now. The store then keeps nothing, says why, and tries again.
    fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError>;

    /// The counterpart of [`Sealer::seal`].
    ///
    /// # Errors
    /// When this was not sealed with this key for this context, or was changed since.
    fn open(&self, context: &[u8], sealed: Vec<u8>) -> Result<Vec<u8>, SealError>;
}

/// Why something does not seal or open: a part of a sentence. It must repeat neither the key nor what is sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SealError(pub String);

/// Seals with AES-256-GCM from AWS-LC.
///
/// Every piece has its own random nonce of 192 bits, and from that a key of its own, as XAES-256-GCM defines it: a key
/// may seal as much as it likes.
pub struct AesGcmSealer {
    key: cmac::Key,
}

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// The first half of a nonce makes the key of the piece, the second is the nonce of that.
const SALT_BYTES: usize = 12;
const HEAD_BYTES: usize = SALT_BYTES + NONCE_LEN;

impl AesGcmSealer {
    /// With this key, which should come from a source of random numbers.
    ///
    /// # Errors
    /// When the cryptographic library refuses it.
    pub fn new(key: &[u8; KEY_BYTES]) -> Result<AesGcmSealer, SealError> {
        let key = cmac::Key::new(cmac::AES_256, key).map_err(|_| SealError("the key cannot be used".to_owned()))?;
        Ok(AesGcmSealer { key })
    }

    /// With the key in this file: 32 bytes as they are, in hexadecimal or in Base64. [`make_key_file`] makes one.
    ///
    /// # Errors
    /// When the file cannot be read, can be read by other users, or holds no key.
    pub fn from_key_file(path: impl AsRef<Path>) -> Result<AesGcmSealer, StoreError> {
        let key = key_file::read(path.as_ref())?;
        AesGcmSealer::new(&key).map_err(|error| StoreError(error.0))
    }

    /// The key of the one piece whose nonce begins so.
    fn key_of(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
        for (counter, half) in (1_u8..).zip(key.chunks_exact_mut(KEY_BYTES / 2)) {
            let mut block = [0, counter, b'X', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            block[4..].copy_from_slice(salt);
            half.copy_from_slice(cmac::sign(&self.key, &block).ok()?.as_ref());
        }
        UnboundKey::new(&AES_256_GCM, &key[..]).ok().map(LessSafeKey::new)
    }

    fn seal_with(&self, head: &[u8; HEAD_BYTES], context: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let (salt, nonce) = head.split_at(SALT_BYTES);
        let key = self.key_of(salt)?;
        let mut sealed = Vec::with_capacity(HEAD_BYTES + plain.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(head);
        sealed.extend_from_slice(plain);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(context), &mut sealed[HEAD_BYTES..]).ok()?;
        sealed.extend_from_slice(tag.as_ref());
        Some(sealed)
    }
}

impl Sealer for AesGcmSealer {
    fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut head = [0_u8; HEAD_BYTES];
        random(&mut head)?;
        self.seal_with(&head, context, plain).ok_or_else(|| SealError("it cannot be encrypted".to_owned()))
    }

    fn open(&self, context: &[u8], mut sealed: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let foreign = || SealError("another key sealed it, or it was changed or moved".to_owned());
        let (salt, nonce) = sealed.get(..HEAD_BYTES).ok_or_else(foreign)?.split_at(SALT_BYTES);
        let key = self.key_of(salt).ok_or_else(foreign)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| foreign())?;
        let opened = key.open_within(nonce, Aad::from(context), &mut sealed, HEAD_BYTES..);
        let length = opened.map_err(|_| foreign())?.len();
        sealed.truncate(length);
        Ok(sealed)
    }
}

impl fmt::Debug for AesGcmSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AesGcmSealer").finish_non_exhaustive()
    }
}

/// 32 random bytes.
fn random_key() -> Result<Zeroizing<[u8; KEY_BYTES]>, SealError> {
    let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
    random(&mut key[..])?;
    Ok(key)
}

fn random(bytes: &mut [u8]) -> Result<(), SealError> {
    rand::fill(bytes).map_err(|_| SealError("the system gives no random numbers".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published vectors of XAES-256-GCM.
    #[test]
    fn it_is_the_algorithm_it_says() {
        let head = b"ABCDEFGHIJKLMNOPQRSTUVWX";
        for (key, context, expected) in [
            ([1; 32], "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
            ([3; 32], "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
        ] {
            let sealer = AesGcmSealer::new(&key).unwrap();
            let sealed = sealer.seal_with(head, context.as_bytes(), b"XAES-256-GCM").unwrap();
            let hex: String = sealed[HEAD_BYTES..].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected);
            assert_eq!(sealer.open(context.as_bytes(), sealed).unwrap(), b"XAES-256-GCM");
        }
    }

    #[test]
    fn nothing_opens_that_was_changed_moved_or_sealed_by_another() {
        let sealer = AesGcmSealer::new(&[7; 32]).unwrap();
        for plain in [&b""[..], b"x", &[9; 1000]] {
            let sealed = sealer.seal(b"here", plain).unwrap();
            assert_ne!(sealed, sealer.seal(b"here", plain).unwrap(), "a nonce is used once");
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert!(sealer.open(b"here", changed).is_err(), "byte {at}");
                assert!(sealer.open(b"here", sealed[..at].to_vec()).is_err(), "cut at {at}");
            }
            assert!(sealer.open(b"there", sealed.clone()).is_err());
            assert!(AesGcmSealer::new(&[8; 32]).unwrap().open(b"here", sealed.clone()).is_err());
            assert_eq!(sealer.open(b"here", sealed).unwrap(), plain);
        }
        assert_eq!(format!("{sealer:?}"), "AesGcmSealer { .. }");
    }
}
