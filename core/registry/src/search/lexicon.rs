//! The words of all agents: which there are, how many agents have each, and who has the rare ones.

use rustc_hash::FxHashMap;

use super::document::Word;

/// Who has a word is remembered up to this many; of a commoner word only how many.
const RARE: usize = 32;

/// A word as written.
struct Form {
    text: Box<str>,
    term: u32,
    agents: u32,
}

/// What the forms of one stem share.
#[derive(Default)]
struct Term {
    stem: Box<str>,
    agents: u32,
    /// None once it was common.
    holders: Option<Vec<u32>>,
}

/// A word of an agent, by number.
#[derive(Clone, Copy)]
pub(super) struct Item {
    form: u32,
    pub(super) term: u32,
    pub(super) row: u16,
    pub(super) count: u16,
}

/// The words of all agents.
#[derive(Default)]
pub(super) struct Lexicon {
    forms: Vec<Form>,
    by_text: FxHashMap<Box<str>, u32>,
    free_forms: Vec<u32>,
    terms: Vec<Term>,
    by_stem: FxHashMap<Box<str>, u32>,
    free_terms: Vec<u32>,
    agents: usize,
    words: u64,
}

impl Lexicon {
    /// Takes the words of the agent in `slot` in.
    pub(super) fn insert(&mut self, slot: u32, words: &[Word]) -> Box<[Item]> {
        let items: Box<[Item]> = words.iter().map(|word| self.item(word)).collect();
        for term in distinct(&items) {
            let term = &mut self.terms[term as usize];
            term.agents += 1;
            if let Some(holders) = &mut term.holders {
                if holders.len() == RARE {
                    term.holders = None;
                } else {
                    holders.push(slot);
                }
            }
        }
        self.agents += 1;
        self.words += words.iter().map(|word| u64::from(word.count)).sum::<u64>();
        items
    }

    fn item(&mut self, word: &Word) -> Item {
        let form = match self.by_text.get(word.text.as_str()) {
            Some(form) => *form,
            None => {
                let term = self.term(&word.stem);
                let form = Form { text: word.text.as_str().into(), term, agents: 0 };
                let at = place(&mut self.forms, &mut self.free_forms, form);
                self.by_text.insert(word.text.as_str().into(), at);
                at
            }
        };
        let known = &mut self.forms[form as usize];
        known.agents += 1;
        Item { form, term: known.term, row: word.row, count: word.count }
    }

    fn term(&mut self, stem: &str) -> u32 {
        if let Some(term) = self.by_stem.get(stem) {
            return *term;
        }
        let term = Term { stem: stem.into(), agents: 0, holders: Some(Vec::new()) };
        let at = place(&mut self.terms, &mut self.free_terms, term);
        self.by_stem.insert(stem.into(), at);
        at
    }

    /// Forgets the words of the agent that was in `slot`.
    pub(super) fn remove(&mut self, slot: u32, items: &[Item]) {
        for item in items {
            let form = &mut self.forms[item.form as usize];
            form.agents -= 1;
            if form.agents == 0 {
                self.by_text.remove(&form.text);
                form.text = Box::default();
                self.free_forms.push(item.form);
            }
        }
        for at in distinct(items) {
            let term = &mut self.terms[at as usize];
            term.agents -= 1;
            if let Some(holders) = &mut term.holders {
                holders.retain(|holder| *holder != slot);
            }
            if term.agents == 0 {
                self.by_stem.remove(&term.stem);
                *term = Term::default();
                self.free_terms.push(at);
            }
        }
        self.agents -= 1;
        self.words -= items.iter().map(|item| u64::from(item.count)).sum::<u64>();
    }

    /// How many agents have the word as written.
    pub(super) fn form_agents(&self, text: &str) -> u32 {
        self.by_text.get(text).map_or(0, |form| self.forms[*form as usize].agents)
    }

    /// The number of a stem.
    pub(super) fn find(&self, stem: &str) -> Option<u32> {
        self.by_stem.get(stem).copied()
    }

    /// Who has the term, if it is rare.
    pub(super) fn holders(&self, term: u32) -> &[u32] {
        self.terms[term as usize].holders.as_deref().unwrap_or_default()
    }

    /// How telling a term is: BM25's inverse frequency.
    pub(super) fn rarity(&self, term: Option<u32>) -> f32 {
        let have = term.map_or(0, |term| self.terms[term as usize].agents) as f32;
        let agents = self.agents as f32;
        (1.0 + (agents - have + 0.5) / (have + 0.5)).ln()
    }

    /// Words of the average agent, at least 1.
    pub(super) fn average(&self) -> f32 {
        (self.words as f32 / self.agents.max(1) as f32).max(1.0)
    }
}

fn place<T>(all: &mut Vec<T>, free: &mut Vec<u32>, new: T) -> u32 {
    match free.pop() {
        Some(at) => {
            all[at as usize] = new;
            at
        }
        None => {
            all.push(new);
            // 2^32 words would take more memory than there is.
            u32::try_from(all.len() - 1).unwrap_or(u32::MAX)
        }
    }
}

fn distinct(items: &[Item]) -> Vec<u32> {
    let mut terms: Vec<u32> = items.iter().map(|item| item.term).collect();
    terms.sort_unstable();
    terms.dedup();
    terms
}
