//! Identifiers this side makes. Received ids are opaque text and never pass through here.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::time::Timestamp;

/// Where random bytes come from. The caller supplies it, since this crate reads no system state.
pub trait Entropy: Send {
    /// Overwrites `bytes` with cryptographically secure random bytes.
    fn fill(&mut self, bytes: &mut [u8]);
}

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const RANDOM_BITS: u32 = 80;
const MAX_MS: u64 = (1 << 48) - 1;

/// 48 bits of milliseconds since 1970 and 80 random bits, shown as 26 upper-case Crockford characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ulid(u128);

impl Ulid {
    /// Times beyond 48 bits (the year 10889) are clamped.
    pub fn from_parts(ms: u64, random: [u8; 10]) -> Self {
        let random = random.iter().fold(0u128, |all, byte| (all << 8) | u128::from(*byte));
        Ulid((u128::from(ms.min(MAX_MS)) << RANDOM_BITS) | random)
    }

    /// Appends the 26 characters.
    pub fn push_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text());
    }

    fn text(self) -> [u8; 26] {
        let mut text = [0; 26];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            *place = CROCKFORD[(rest & 31) as usize];
            rest >>= 5;
        }
        text
    }
}

impl fmt::Display for Ulid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.text()).map_err(|_| fmt::Error)?)
    }
}

/// Makes ids. Within one generator ULIDs always increase, also when the clock stands still or steps back.
pub struct IdGenerator {
    entropy: Box<dyn Entropy>,
    last: u128,
}

impl IdGenerator {
    /// A generator drawing on `entropy`.
    pub fn new(entropy: Box<dyn Entropy>) -> Self {
        IdGenerator { entropy, last: 0 }
    }

    /// The next ULID.
    pub fn ulid(&mut self, now: Timestamp) -> Ulid {
        let ms = u64::try_from(now.0).unwrap_or(0).min(MAX_MS);
        // Counting up within a millisecond keeps the order and asks for random bytes at most once a millisecond.
        if self.last != 0 && u128::from(ms) <= self.last >> RANDOM_BITS {
            self.last = self.last.saturating_add(1);
        } else {
            let mut random = [0; 10];
            self.entropy.fill(&mut random);
            self.last = Ulid::from_parts(ms, random).0;
        }
        Ulid(self.last)
    }

    /// `msg_` and a ULID.
    pub fn message_id(&mut self, now: Timestamp) -> String {
        self.prefixed("msg_", now)
    }

    /// `sess_` and a ULID.
    pub fn session_id(&mut self, now: Timestamp) -> String {
        self.prefixed("sess_", now)
    }

    /// `job_` and a ULID.
    pub fn job_id(&mut self, now: Timestamp) -> String {
        self.prefixed("job_", now)
    }

    /// `res_` and a ULID.
    pub fn result_id(&mut self, now: Timestamp) -> String {
        self.prefixed("res_", now)
    }

    /// `cred_` and a ULID.
    pub fn credential_id(&mut self, now: Timestamp) -> String {
        self.prefixed("cred_", now)
    }

    /// `rt_` and 43 base64url characters: 256 random bits. Secret.
    pub fn resume_token(&mut self) -> String {
        let mut random = [0; 32];
        self.entropy.fill(&mut random);
        let mut token = String::with_capacity(46);
        token.push_str("rt_");
        URL_SAFE_NO_PAD.encode_string(random, &mut token);
        token
    }

    /// 80 random bits.
    pub fn random(&mut self) -> [u8; 10] {
        let mut random = [0; 10];
        self.entropy.fill(&mut random);
        random
    }

    /// 32 lower-case hex characters, never all zero.
    pub fn trace_id(&mut self) -> String {
        let mut random = [0; 16];
        self.entropy.fill(&mut random);
        if random == [0; 16] {
            random[15] = 1;
        }
        random
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
            .collect()
    }

    fn prefixed(&mut self, prefix: &str, now: Timestamp) -> String {
        let mut id = String::with_capacity(prefix.len() + 26);
        id.push_str(prefix);
        id.extend(self.ulid(now).text().map(char::from));
        id
    }
}

impl fmt::Debug for IdGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdGenerator").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Constant(u8);

    impl Entropy for Constant {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    fn ids(byte: u8) -> IdGenerator {
        IdGenerator::new(Box::new(Constant(byte)))
    }

    #[test]
    fn a_ulid_is_written_as_its_specification_shows() {
        assert_eq!(Ulid::from_parts(1_469_918_176_385, [0; 10]).to_string(), "01ARYZ6S410000000000000000");
        assert_eq!(Ulid::from_parts(MAX_MS, [255; 10]).to_string(), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
        assert_eq!(Ulid::from_parts(u64::MAX, [0; 10]), Ulid::from_parts(MAX_MS, [0; 10]));
    }

    /// Rules
    #[test]
    fn ulids_increase_when_the_clock_does_not() {
        let mut ids = ids(255);
        let mut last = ids.ulid(Timestamp(1000));
        for ms in [1000, 1000, 500, -1, 1000, 1001, 1001, 9000] {
            let next = ids.ulid(Timestamp(ms));
            assert!(next > last, "{next} after {last}");
            last = next;
        }
    }

    /// Rules
    #[test]
    fn ids_carry_their_prefix() {
        let mut ids = ids(7);
        let now = Timestamp(1_700_000_000_000);
        for (id, prefix) in [
            (ids.message_id(now), "msg_"),
            (ids.session_id(now), "sess_"),
            (ids.job_id(now), "job_"),
            (ids.result_id(now), "res_"),
            (ids.credential_id(now), "cred_"),
        ] {
            let ulid = id.strip_prefix(prefix).unwrap_or_default();
            assert!(ulid.len() == 26 && ulid.bytes().all(|byte| CROCKFORD.contains(&byte)), "{id}");
        }
    }

    #[test]
    fn tokens_and_traces_have_their_form() {
        assert_eq!(ids(255).resume_token(), format!("rt_{}8", "_".repeat(42)));
        assert_eq!(ids(0xab).trace_id(), "ab".repeat(16));
        assert_eq!(ids(0).trace_id(), format!("{}1", "0".repeat(31)));
    }
}
