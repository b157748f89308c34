//! The static table: a vector for every word, distilled from a small sentence model (`xtask/search_table`).
//!
//! The file, deflated: `ARCPWORD`, then in little endian the number of rows (u32), of dimensions (u16) and of words
//! (u32); a weight for each row (u8, 255 = 1); a scale for each row (u16, 65535 = 1); the rows, each dimension
//! in half a byte as value + 8, the first half of them in the low halves; the words in byte order, each as the length it shares with the one
//! before (u8), the length of the rest (u8), the rest, and its row (u16). A word that begins with `#` is a piece that
//! continues a word, with `~` a stem.

use std::io::Read;
use std::sync::OnceLock;

use super::words::{runs, stem};

/// The table as it ships.
static PACKED: &[u8] = include_bytes!("table.bin");
const MAGIC: &[u8] = b"ARCPWORD";

/// Numbers in a vector of the table.
pub(super) const DIMENSIONS: usize = 160;
const ROW: usize = DIMENSIONS / 2;

/// A row of the table. `u16::MAX` stands for none.
pub(super) type Row = u16;
/// The row of a word that the table has only in pieces, or not at all.
pub(super) const NO_ROW: Row = Row::MAX;

/// What the table knows of a word.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Known {
    /// It has a row.
    Whole(Row),
    /// It is made of pieces that have rows.
    Pieces(Vec<Row>),
    /// Nothing.
    Unknown,
}

/// The table, unpacked.
pub(super) struct Table {
    weights: Vec<u8>,
    scales: Vec<u16>,
    rows: Vec<u8>,
    text: String,
    /// Start in `text` and row of each word, then the end of the last.
    entries: Vec<(u32, Row)>,
    /// Open addressing: place of a word in `entries` plus one, 0 where free.
    slots: Vec<u32>,
}

impl Table {
    /// The one that ships, unpacked at first use. None when the file in the program is damaged, which a test rules out.
    pub(super) fn shared() -> Option<&'static Self> {
        static TABLE: OnceLock<Option<Table>> = OnceLock::new();
        TABLE.get_or_init(|| Self::unpack(PACKED)).as_ref()
    }

    fn unpack(packed: &[u8]) -> Option<Self> {
        let mut plain = Vec::with_capacity(packed.len() * 2);
        flate2::read::DeflateDecoder::new(packed).read_to_end(&mut plain).ok()?;
        let mut rest = &plain[..];
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at_checked(n)?;
            rest = tail;
            Some(head)
        };
        if take(MAGIC.len())? != MAGIC {
            return None;
        }
        let rows = u32::from_le_bytes(take(4)?.try_into().ok()?) as usize;
        let dimensions = usize::from(u16::from_le_bytes(take(2)?.try_into().ok()?));
        let count = u32::from_le_bytes(take(4)?.try_into().ok()?) as usize;
        if dimensions != DIMENSIONS || rows >= usize::from(NO_ROW) || count > 1 << 20 {
            return None;
        }
        let weights = take(rows)?.to_vec();
        let scales = take(rows * 2)?.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
        let packed_rows = take(rows * ROW)?.to_vec();
        let mut text = String::with_capacity(count * 9);
        let mut entries = Vec::with_capacity(count + 1);
        let mut last = 0;
        for _ in 0..count {
            let shared = usize::from(*take(1)?.first()?);
            let length = usize::from(*take(1)?.first()?);
            let start = text.len();
            let prefix = text.get(last..last + shared)?.to_owned();
            text.push_str(&prefix);
            text.push_str(std::str::from_utf8(take(length)?).ok()?);
            let row = u16::from_le_bytes(take(2)?.try_into().ok()?);
            if usize::from(row) >= rows {
                return None;
            }
            entries.push((u32::try_from(start).ok()?, row));
            last = start;
        }
        entries.push((u32::try_from(text.len()).ok()?, NO_ROW));
        let mut table = Self { weights, scales, rows: packed_rows, text, entries, slots: Vec::new() };
        table.slots = table.hash(count);
        Some(table)
    }

    fn hash(&self, count: usize) -> Vec<u32> {
        let size = (count * 2).next_power_of_two();
        let mut slots = vec![0_u32; size];
        for (at, place) in (0..count).zip(1..) {
            let mut slot = hash(self.word(at).as_bytes()) & (size - 1);
            while slots[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            slots[slot] = place;
        }
        slots
    }

    fn word(&self, at: usize) -> &str {
        &self.text[self.entries[at].0 as usize..self.entries[at + 1].0 as usize]
    }

    fn find(&self, word: &[u8]) -> Option<Row> {
        let mask = self.slots.len() - 1;
        let mut slot = hash(word) & mask;
        loop {
            let at = (self.slots[slot] as usize).checked_sub(1)?;
            if self.word(at).as_bytes() == word {
                return Some(self.entries[at].1);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// The row of a whole word, of its stem's when the word itself is not there.
    pub(super) fn whole(&self, word: &str) -> Option<Row> {
        // Pieces and stems have their own first characters, which no word has.
        self.find(word.as_bytes()).or_else(|| {
            let stem = stem(word);
            self.find(format!("~{stem}").as_bytes()).or_else(|| self.find(stem.as_bytes()))
        })
    }

    /// The row of a word that is in the table as it is.
    pub(super) fn exact(&self, word: &str) -> Option<Row> {
        self.find(word.as_bytes())
    }

    /// What the table knows of `word`, which is folded.
    pub(super) fn known(&self, word: &str) -> Known {
        if let Some(row) = self.whole(word) {
            return Known::Whole(row);
        }
        if let Some(parts) = runs(word) {
            let rows: Vec<Row> = parts.into_iter().filter_map(|part| self.whole(part)).collect();
            if !rows.is_empty() {
                return Known::Pieces(rows);
            }
        }
        self.pieces(word)
    }

    /// Greedy longest match from the left, as the model's own tokeniser does.
    fn pieces(&self, word: &str) -> Known {
        let mut found = Vec::new();
        let mut piece = String::with_capacity(word.len() + 1);
        let mut start = 0;
        while start < word.len() {
            let mut next = None;
            for (end, _) in word[start..].char_indices().rev() {
                let end = start + end + word[start + end..].chars().next().map_or(1, char::len_utf8);
                piece.clear();
                if start > 0 {
                    piece.push('#');
                }
                piece.push_str(&word[start..end]);
                if let Some(row) = self.find(piece.as_bytes()) {
                    next = Some((end, row));
                    break;
                }
            }
            let Some((end, row)) = next else { return Known::Unknown };
            found.push(row);
            start = end;
        }
        if found.is_empty() { Known::Unknown } else { Known::Pieces(found) }
    }

    /// How much a word counts: near 0 for the commonest, 1 for the rarest.
    pub(super) fn weight(&self, row: Row) -> f32 {
        f32::from(self.weights[usize::from(row)]) / 255.0
    }

    /// Adds `factor` times the row's vector to `sum`.
    pub(super) fn add(&self, row: Row, factor: f32, sum: &mut [f32; DIMENSIONS]) {
        let scale = factor * f32::from(self.scales[usize::from(row)]) / 65_535.0;
        let (low, high) = sum.split_at_mut(ROW);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(self.packed(row)) {
            *low += scale * (f32::from(byte & 15) - 8.0);
            *high += scale * (f32::from(byte >> 4) - 8.0);
        }
    }

    /// The direction of a row in small whole numbers, and its length in them.
    pub(super) fn direction(&self, row: Row, into: &mut [i16; DIMENSIONS]) -> f32 {
        let (low, high) = into.split_at_mut(ROW);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(self.packed(row)) {
            *low = i16::from(byte & 15) - 8;
            *high = i16::from(byte >> 4) - 8;
        }
        length(into)
    }

    fn packed(&self, row: Row) -> &[u8] {
        &self.rows[usize::from(row) * ROW..(usize::from(row) + 1) * ROW]
    }
}

/// The product of two directions in whole numbers.
#[inline]
pub(super) fn product(a: &[i16; DIMENSIONS], b: &[i16; DIMENSIONS]) -> i32 {
    a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}

/// The length of a direction in whole numbers, at least 1.
pub(super) fn length(direction: &[i16; DIMENSIONS]) -> f32 {
    (product(direction, direction).max(1) as f32).sqrt()
}

/// FNV-1a with a last mixing, so that the low bits are even.
fn hash(bytes: &[u8]) -> usize {
    let mut value = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        value = (value ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    (value ^ (value >> 32)) as usize
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Another table ranks otherwise: who makes one says so here, after `make bench-search`.
    const SHA_256: &str = "5ac066ebaa3fb0c805a5348eed32954c5d53c00b98f8dec672f185f9354d941c";

    fn cosine(table: &Table, one: &str, other: &str) -> f32 {
        let (mut a, mut b) = ([0; DIMENSIONS], [0; DIMENSIONS]);
        let lengths =
            table.direction(table.whole(one).unwrap(), &mut a) * table.direction(table.whole(other).unwrap(), &mut b);
        product(&a, &b) as f32 / lengths
    }

    #[test]
    fn the_table_is_the_one_that_was_judged() {
        let hash: String = Sha256::digest(PACKED).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, SHA_256);
        assert!(PACKED.len() <= 3_000_000, "{} bytes", PACKED.len());
    }

    #[test]
    fn words_of_one_meaning_are_near() {
        let table = Table::shared().unwrap();
        for (one, near, far) in
            [("doctor", "physician", "bridge"), ("invoice", "bill", "galaxy"), ("kubernetes", "docker", "wine")]
        {
            assert!(cosine(table, one, near) > cosine(table, one, far) + 0.1, "{one} {near} {far}");
        }
        assert_eq!(table.whole("summarizing"), table.whole("summarizes"));
        assert!(
            table.weight(table.whole("the").unwrap()) < 0.1 && table.weight(table.whole("summarizer").unwrap()) > 0.9
        );
    }

    #[test]
    fn unknown_words_are_taken_in_pieces_or_not_at_all() {
        let table = Table::shared().unwrap();
        assert!(matches!(table.known("gpt4"), Known::Pieces(_) | Known::Whole(_)));
        assert!(matches!(table.known("qwxzzy"), Known::Pieces(rows) if rows.len() > 1));
        assert_eq!(table.known("\u{6587}"), Known::Unknown);
        assert_eq!(table.known(""), Known::Unknown);
    }

    #[test]
    fn a_damaged_table_is_refused() {
        assert!(Table::unpack(b"").is_none());
        assert!(Table::unpack(&PACKED[..PACKED.len() / 2]).is_none());
        let mut plain = Vec::new();
        flate2::read::DeflateDecoder::new(PACKED).read_to_end(&mut plain).unwrap();
        plain[0] ^= 1;
        let mut packed = Vec::new();
        flate2::read::DeflateEncoder::new(&plain[..], flate2::Compression::fast()).read_to_end(&mut packed).unwrap();
        assert!(Table::unpack(&packed).is_none());
    }
}
