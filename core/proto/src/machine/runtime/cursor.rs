//! Where a page of a listing ended, as a text that tells its holder nothing and fits one principal and one filter
//! only.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::listing::Place;
use crate::error::Error;
use crate::time::Timestamp;

const VERSION: u8 = 1;
const TAG: usize = 16;

/// More than any cursor made here: what is longer is not looked at.
const MAX_TEXT: usize = 1024;

/// The secret under which cursors are made.
///
/// A cursor is a version, a tag and a masked place. The tag authenticates principal, filter and place; the mask derives
/// from the tag, so that a place where a page ended on a job its reader may not see stays hidden.
pub(super) struct CursorKey([u8; 32]);

impl CursorKey {
    pub(super) fn new(key: [u8; 32]) -> Self {
        CursorKey(key)
    }

    pub(super) fn bytes(&self) -> [u8; 32] {
        self.0
    }

    pub(super) fn write(&self, place: &Place, principal: &str, filter: &[u8]) -> String {
        let mut plain = place.0.0.to_be_bytes().to_vec();
        plain.extend_from_slice(place.1.as_bytes());
        let tag = self.tag(&plain, principal, filter);
        self.mask(&tag, &mut plain);
        let mut cursor = vec![VERSION];
        cursor.extend_from_slice(&tag);
        cursor.extend_from_slice(&plain);
        URL_SAFE_NO_PAD.encode(cursor)
    }

    /// # Errors
    /// `INVALID_REQUEST` for a text that was not made under this key for this principal and filter.
    pub(super) fn read(&self, text: &str, principal: &str, filter: &[u8]) -> Result<Place, Error> {
        self.open(text, principal, filter).ok_or_else(|| {
            Error::invalid(
                "payload.cursor is not one this runtime gave you for this filter; send next_cursor of the last page \
                 with the same filter, or none to begin again",
            )
        })
    }

    fn open(&self, text: &str, principal: &str, filter: &[u8]) -> Option<Place> {
        let cursor = URL_SAFE_NO_PAD.decode(Some(text).filter(|text| text.len() <= MAX_TEXT)?).ok()?;
        let (version, rest) = cursor.split_first()?;
        let (tag, masked) = rest.split_first_chunk::<TAG>().filter(|_| *version == VERSION)?;
        let mut plain = masked.to_vec();
        self.mask(tag, &mut plain);
        let right = self.tag(&plain, principal, filter);
        if !bool::from(tag.ct_eq(&right)) {
            return None;
        }
        let (at, job_id) = plain.split_first_chunk()?;
        Some((Timestamp(i64::from_be_bytes(*at)), Arc::from(std::str::from_utf8(job_id).ok()?)))
    }

    fn tag(&self, place: &[u8], principal: &str, filter: &[u8]) -> [u8; TAG] {
        // Lengths keep the parts apart.
        let length = |part: &[u8]| (part.len() as u64).to_be_bytes();
        let principal = principal.as_bytes();
        let digest =
            self.digest(&[b"tag", &length(principal), principal, &length(filter), filter, &length(place), place]);
        let mut tag = [0; TAG];
        tag.copy_from_slice(&digest[..TAG]);
        tag
    }

    fn mask(&self, tag: &[u8; TAG], place: &mut [u8]) {
        for (block, part) in place.chunks_mut(32).enumerate() {
            let stream = self.digest(&[b"mask", tag, &(block as u64).to_be_bytes()]);
            part.iter_mut().zip(stream).for_each(|(byte, mask)| *byte ^= mask);
        }
    }

    fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        // A key of 32 bytes is shorter than a block, so it is taken as it is.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.0);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> CursorKey {
        CursorKey::new([byte; 32])
    }

    fn place(at: i64, job_id: &str) -> Place {
        (Timestamp(at), job_id.into())
    }

    proptest! {
        #[test]
        fn a_cursor_comes_back_as_it_went(at: i64, job_id in "\\PC{0,80}", principal in ".*", filter: Vec<u8>) {
            let here = place(at, &job_id);
            let text = key(1).write(&here, &principal, &filter);
            prop_assert_eq!(key(1).open(&text, &principal, &filter), Some(here));
        }

        #[test]
        fn a_changed_cursor_is_refused(job_id in "[a-z]{1,40}", byte: prop::sample::Index, bit in 0_u8..8) {
            let text = key(1).write(&place(7, &job_id), "alice", b"f");
            let mut raw = URL_SAFE_NO_PAD.decode(text).unwrap();
            let byte = byte.index(raw.len());
            raw[byte] ^= 1 << bit;
            prop_assert_eq!(key(1).open(&URL_SAFE_NO_PAD.encode(raw), "alice", b"f"), None);
        }

        #[test]
        fn no_text_is_too_odd_to_be_refused(text in ".*") {
            prop_assert_eq!(key(1).open(&text, "alice", b"f"), None);
        }
    }

    #[test]
    fn a_cursor_fits_its_key_principal_and_filter_only() {
        let text = key(1).write(&place(7, "job_1"), "alice", b"f");
        assert!(key(1).open(&text, "alice", b"f").is_some());
        assert_eq!(key(2).open(&text, "alice", b"f"), None);
        assert_eq!(key(1).open(&text, "alicef", b""), None);
        assert_eq!(key(1).open(&text, "bob", b"f"), None);
        assert_eq!(key(1).open(&text, "alice", b"g"), None);
    }

    #[test]
    fn a_cursor_does_not_show_its_place() {
        let text = key(1).write(&place(7, "job_01JX3J00000000000000000001"), "alice", b"f");
        let raw = URL_SAFE_NO_PAD.decode(text).unwrap();
        assert!(!raw.windows(4).any(|part| part == b"job_"), "{raw:?}");
    }
}
