//! A question as the search reads it, and what an agent is worth to it.

use rustc_hash::FxHashMap;

use super::document::{add, counts, unit};
use super::lexicon::{Item, Lexicon};
use super::score::{B, K, Parts};
use super::segment::{Question, Remote};
use super::table::{DIMENSIONS, Known, NO_ROW, Row, Table, length, product};
use super::typo::mend;
use super::words::{stem, words};

/// Words of a question that are read. One of 1000 characters has some 200.
const MOST_READ: usize = 256;
/// Distinct words that are looked for one by one, the weightiest.
const MOST_WEIGHED: usize = 16;
/// A mended word is a guess.
const MENDED_COUNTS: f32 = 0.9;

/// Where a word points, in small whole numbers, and the length of that.
type Direction = (Box<[i16; DIMENSIONS]>, f32);

/// One word of a question.
struct Asked {
    /// None when no agent has it.
    term: Option<u32>,
    /// How much it counts among the words of the question.
    weight: f32,
    rarity: f32,
    /// None when the table does not know it.
    direction: Option<Direction>,
}

/// A question, read.
pub(super) struct Reading {
    asked: Vec<Asked>,
    most_words: f32,
    average: f32,
    pub(super) question: Question,
    /// Its words joined, as names are, and with slips mended.
    pub(super) key: String,
    pub(super) mended: Option<String>,
    pub(super) remote: Option<Remote>,
}

impl Reading {
    pub(super) fn new(query: &str, table: Option<&Table>, lexicon: &Lexicon, remote: Option<Remote>) -> Self {
        let mut typed = words(query, MOST_READ);
        let key = typed.join(" ");
        let mut slips = false;
        let mut vector = [0.0; DIMENSIONS];
        let mut asked: Vec<(String, Asked)> = Vec::new();
        for word in &mut typed {
            let mut share = counts(word);
            if let Some(meant) = slip(word, table, lexicon) {
                *word = meant;
                share *= MENDED_COUNTS;
                slips = true;
            }
            let known = table.map_or(Known::Unknown, |table| table.known(word));
            if let Some(table) = table {
                add(table, &known, share, &mut vector);
            }
            let stem = stem(word);
            if asked.iter().all(|(other, _)| *other != stem) {
                let term = lexicon.find(&stem);
                let rarity = lexicon.rarity(term);
                let (direction, weight) = table.map_or((None, 1.0), |table| direction(table, &known));
                asked.push((stem, Asked { term, weight: weight * share, rarity: rarity * share, direction }));
            }
        }
        unit(&mut vector);
        let mut asked: Vec<Asked> = asked.into_iter().map(|(_, asked)| asked).collect();
        let most_words = asked.iter().map(|asked| asked.rarity * (K + 1.0)).sum();
        asked.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        asked.truncate(MOST_WEIGHED);
        Self {
            asked,
            most_words,
            average: lexicon.average(),
            question: Question::new(&vector),
            mended: slips.then(|| typed.join(" ")),
            key,
            remote,
        }
    }

    /// The terms that agents have, the rarest first.
    pub(super) fn terms(&self) -> impl Iterator<Item = u32> {
        let mut terms: Vec<_> = self.asked.iter().filter_map(|asked| Some((asked.rarity, asked.term?))).collect();
        terms.sort_by(|a, b| b.0.total_cmp(&a.0));
        terms.into_iter().map(|(_, term)| term)
    }

    /// What an agent with these words and this cosine is worth.
    pub(super) fn weigh(&self, items: &[Item], cosine: f32, table: Option<&Table>, memory: &mut Memory) -> Parts {
        let width = self.asked.len();
        let mut nearest = [0.0_f32; MOST_WEIGHED];
        let mut count = [0.0_f32; MOST_WEIGHED];
        let mut length = 0.0;
        for item in items {
            length += f32::from(item.count);
            for (at, asked) in self.asked.iter().enumerate() {
                if asked.term == Some(item.term) {
                    count[at] += f32::from(item.count);
                    nearest[at] = 1.0;
                }
            }
            if let Some(table) = table
                && item.row != NO_ROW
            {
                let near = memory.near(item.row, self, table);
                for (most, near) in nearest[..width].iter_mut().zip(near) {
                    *most = most.max(*near);
                }
            }
        }
        let (mut met, mut weights, mut words) = (0.0, 0.0, 0.0);
        for ((asked, nearest), count) in self.asked.iter().zip(nearest).zip(count) {
            if asked.direction.is_some() || asked.term.is_some() {
                met += asked.weight * nearest;
                weights += asked.weight;
            }
            words += asked.rarity * count * (K + 1.0) / (count + K * (1.0 - B + B * length / self.average));
        }
        Parts {
            cosine: cosine.clamp(0.0, 1.0),
            soft: if weights > 0.0 { (met / weights).clamp(0.0, 1.0) } else { 0.0 },
            words: if self.most_words > 0.0 { (words / self.most_words).clamp(0.0, 1.0) } else { 0.0 },
        }
    }
}

/// The words that were compared with the question's: agents share most of theirs.
#[derive(Default)]
pub(super) struct Memory {
    places: FxHashMap<Row, u32>,
    near: Vec<f32>,
}

impl Memory {
    /// The cosines of a row with each word of the question.
    fn near(&mut self, row: Row, reading: &Reading, table: &Table) -> &[f32] {
        let width = reading.asked.len();
        let start = match self.places.get(&row) {
            Some(start) => *start as usize,
            None => {
                let start = self.near.len();
                let mut other = [0; DIMENSIONS];
                let of_other = table.direction(row, &mut other);
                self.near.extend(reading.asked.iter().map(|asked| match &asked.direction {
                    Some((direction, length)) => product(direction, &other) as f32 / (length * of_other),
                    None => 0.0,
                }));
                self.places.insert(row, u32::try_from(start).unwrap_or(u32::MAX));
                start
            }
        };
        &self.near[start..start + width]
    }
}

/// Where a word points, and how rare it is.
fn direction(table: &Table, known: &Known) -> (Option<Direction>, f32) {
    let mut whole = Box::new([0; DIMENSIONS]);
    match known {
        Known::Whole(row) => {
            let length = table.direction(*row, &mut whole);
            (Some((whole, length)), table.weight(*row))
        }
        Known::Pieces(rows) => {
            let mut sum = [0.0; DIMENSIONS];
            for row in rows {
                table.add(*row, 1.0, &mut sum);
            }
            unit(&mut sum);
            for (whole, part) in whole.iter_mut().zip(sum) {
                *whole = (part * 256.0).round() as i16;
            }
            let length = length(&whole);
            let weight = rows.iter().map(|row| table.weight(*row)).sum::<f32>() / rows.len() as f32;
            (Some((whole, length)), weight)
        }
        Known::Unknown => (None, 1.0),
    }
}

/// What was meant by a word that neither an agent nor the table has.
fn slip(word: &str, table: Option<&Table>, lexicon: &Lexicon) -> Option<String> {
    if lexicon.form_agents(word) > 0 || lexicon.find(&stem(word)).is_some() {
        return None;
    }
    if table.is_some_and(|table| table.whole(word).is_some()) {
        return None;
    }
    mend(word, |candidate| {
        // A word of an agent is likelier meant than any other, a common word likelier than a rare one.
        let have = lexicon.form_agents(candidate);
        let common = table.and_then(|table| Some(1.0 - table.weight(table.exact(candidate)?)));
        match (have, common) {
            (0, common) => common,
            (_, common) => Some(1.0 + common.unwrap_or(0.0)),
        }
    })
}
