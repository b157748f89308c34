//! The bytes inside blobs: a checksum, a version, then varints and counted bytes.

use std::fmt;

/// The form of every blob this version writes.
const FORM: u8 = 1;

/// What is wrong with a blob. It is never more than a sentence: what it holds is not repeated.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage(pub(super) String);

impl Damage {
    pub(super) fn new(what: &str) -> Damage {
        Damage(what.to_owned())
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Starts a blob: room for the checksum, and the form.
pub(super) fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0, 0, 0, FORM]);
}

/// Ends a blob that was begun at the start of `out`.
pub(super) fn seal(out: &mut [u8]) {
    if let Some((sum, rest)) = out.split_first_chunk_mut::<4>() {
        *sum = crc32fast::hash(rest).to_le_bytes();
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Small distances in either direction become small numbers.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads a blob from its start; every step says what is missing.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Checks the checksum and the form.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Cursor<'a>, Damage> {
        let Some((sum, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(Damage::new("it is cut short"));
        };
        if u32::from_le_bytes(*sum) != crc32fast::hash(rest) {
            return Err(Damage::new("its checksum does not match"));
        }
        match rest.first() {
            Some(&FORM) => Ok(Cursor { bytes, at: 5 }),
            Some(form) => Err(Damage(format!("it has form {form}, this program reads form {FORM}"))),
            None => Err(Damage::new("it is cut short")),
        }
    }

    pub(super) fn at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn byte(&mut self) -> Result<u8, Damage> {
        let byte = self.bytes.get(self.at).copied().ok_or_else(|| Damage::new("it is cut short"))?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn varint(&mut self) -> Result<u64, Damage> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damage::new("a number in it is too long"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, Damage> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Where the next counted bytes lie in the blob.
    pub(super) fn range(&mut self) -> Result<std::ops::Range<usize>, Damage> {
        let length = usize::try_from(self.varint()?).map_err(|_| Damage::new("a length in it is too large"))?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| Damage::new("a length in it is too large"))?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Damage> {
        let range = self.range()?;
        str::from_utf8(&self.bytes[range]).map_err(|_| Damage::new("a text in it is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_whatever_their_size() {
        let numbers = [0, 1, 127, 128, 300, 1 << 32, u64::MAX];
        let mut out = Vec::new();
        begin(&mut out);
        for number in numbers {
            put_varint(&mut out, number);
            put_signed(&mut out, number.cast_signed());
            put_signed(&mut out, number.cast_signed().wrapping_neg());
        }
        put_bytes(&mut out, "ä".as_bytes());
        seal(&mut out);
        let mut cursor = Cursor::open(&out).unwrap();
        for number in numbers {
            assert_eq!(cursor.varint(), Ok(number));
            assert_eq!(cursor.signed(), Ok(number.cast_signed()));
            assert_eq!(cursor.signed(), Ok(number.cast_signed().wrapping_neg()));
        }
        assert_eq!(cursor.text(), Ok("ä"));
        assert!(cursor.at_end());
        assert!(cursor.byte().is_err());
    }

    #[test]
    fn a_changed_or_shortened_blob_is_noticed() {
        let mut out = Vec::new();
        begin(&mut out);
        put_bytes(&mut out, b"something");
        seal(&mut out);
        for at in 0..out.len() {
            let mut changed = out.clone();
            changed[at] ^= 0x10;
            assert!(Cursor::open(&changed).is_err(), "byte {at}");
            assert!(Cursor::open(&out[..at]).is_err(), "cut at {at}");
        }
    }
}
