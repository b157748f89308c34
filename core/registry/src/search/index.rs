//! The agents that can be searched.
//!
//! Writers hold one lock for the words and one segment's for some microseconds; a reader holds either for no longer, so
//! searches run beside each other and beside registrations.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;
use rustc_hash::{FxHashMap, FxHashSet};

use super::document::Document;
use super::lexicon::Lexicon;
use super::question::{Memory, Reading};
use super::score::{ITS_ID, ITS_NAME, NEARLY, Parts, esteem, shown, similarity};
use super::segment::{Best, Candidate, Entry, Filter, Remote, SEGMENT, Segment, cosine};
use super::table::Table;
use super::words::key;
use crate::model::{Registration, SearchRequest};

/// Agents that are weighed closely, at least.
const CANDIDATES: usize = 64;
/// So many more when reputation may lift one from further down (REG-198).
const WEIGHTED_CANDIDATES: usize = 160;
/// Agents taken in because of one rare word, or of their name.
const BY_WORD: usize = 64;

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The agent's id.
    pub id: Arc<str>,
    /// 0 to 1, rounded to four digits; without reputation (REG-198).
    pub similarity: f64,
}

/// The agents that can be searched, in memory.
#[derive(Default)]
pub struct SearchIndex {
    names: RwLock<Names>,
    segments: RwLock<Vec<Arc<RwLock<Segment>>>>,
}

/// Who is where.
#[derive(Default)]
struct Names {
    lexicon: Lexicon,
    by_id: FxHashMap<Arc<str>, Place>,
    /// Folded ids and names.
    by_key: FxHashMap<Box<str>, BTreeSet<u32>>,
    free: Vec<u32>,
    slots: u32,
    next: u64,
}

struct Place {
    slot: u32,
    entry: Arc<Entry>,
}

impl SearchIndex {
    /// One without agents.
    pub fn new() -> Self {
        Self::default()
    }

    /// Agents in it.
    pub fn len(&self) -> usize {
        self.names.read().by_id.len()
    }

    /// Whether no agent is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes an agent in, in the place of the one of the same id. A search that begins after this sees it.
    pub fn insert(&self, agent: &Registration) {
        // All that takes time happens before the lock.
        self.put(Document::read(agent, Table::shared()));
    }

    fn put(&self, document: Document) {
        let mut names = self.names.write();
        let (slot, order) = match names.by_id.remove(document.id.as_str()) {
            Some(place) => {
                names.forget(&place);
                (place.slot, place.entry.order)
            }
            None => {
                let slot = names.free.pop().unwrap_or(names.slots);
                names.slots = names.slots.max(slot + 1);
                names.next += 1;
                (slot, names.next)
            }
        };
        let items = names.lexicon.insert(slot, &document.words);
        for key in &document.keys {
            names.by_key.entry(key.as_str().into()).or_default().insert(slot);
        }
        let entry = Arc::new(Entry {
            id: document.id.into(),
            agent_type: document.agent_type.into(),
            capabilities: document.capabilities.into(),
            items,
            keys: document.keys.into(),
            order,
        });
        names.by_id.insert(Arc::clone(&entry.id), Place { slot, entry: Arc::clone(&entry) });
        self.segment(slot).write().set(slot as usize % SEGMENT, entry, &document.vector);
    }

    /// Forgets an agent. Whether it was there.
    pub fn remove(&self, id: &str) -> bool {
        let mut names = self.names.write();
        let Some(place) = names.by_id.remove(id) else { return false };
        names.forget(&place);
        names.free.push(place.slot);
        self.segment(place.slot).write().clear(place.slot as usize % SEGMENT);
        true
    }

    /// The best agents for a request (REG-197, REG-198): those that `keep` keeps, of its type and with all its
    /// capabilities, from its `min_similarity` up, `top_k` at most. `reputation` is asked for when the request is
    /// weighted. Equals come in the order of their first registration.
    pub fn query(
        &self,
        request: &SearchRequest,
        keep: impl Fn(&str) -> bool,
        reputation: impl Fn(&str) -> f32,
    ) -> Vec<Hit> {
        self.query_with(request, None, keep, reputation)
    }

    /// The same, with the query's vector by the remote embedder: agents that have one too are compared by these alone.
    pub(super) fn query_with(
        &self,
        request: &SearchRequest,
        remote: Option<Remote>,
        keep: impl Fn(&str) -> bool,
        reputation: impl Fn(&str) -> f32,
    ) -> Vec<Hit> {
        let table = Table::shared();
        let filter = Filter::new(request.agent_type.as_deref(), request.capabilities.as_deref());
        let reading;
        let mut certain: FxHashMap<u32, f32> = FxHashMap::default();
        let mut slots = FxHashSet::default();
        {
            let names = self.names.read();
            reading = Reading::new(&request.query, table, &names.lexicon, remote);
            names.named(&request.query, &reading, &mut certain);
            for term in reading.terms() {
                if slots.len() < BY_WORD {
                    slots.extend(names.lexicon.holders(term));
                }
            }
        }
        slots.extend(certain.keys());
        let found = self.candidates(request, &reading, &filter, &keep, slots);

        let mut memory = Memory::default();
        let mut hits: Vec<(f32, f64, Arc<Entry>)> = Vec::with_capacity(found.len());
        for (candidate, remote) in found {
            let entry = candidate.entry;
            let by_meaning = match remote {
                Some(cosine) => cosine,
                None => similarity(reading.weigh(&entry.items, candidate.cosine, table, &mut memory)),
            };
            let named = certain.get(&candidate.slot).copied().unwrap_or(0.0);
            let similarity = by_meaning.max(named);
            let shown = shown(similarity);
            if shown >= request.min_similarity {
                let rank = if request.weighted { similarity * esteem(reputation(&entry.id)) } else { similarity };
                hits.push((rank, shown, entry));
            }
        }
        hits.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.2.order.cmp(&b.2.order)));
        hits.truncate(request.top_k);
        hits.into_iter().map(|(_, similarity, entry)| Hit { id: Arc::clone(&entry.id), similarity }).collect()
    }

    /// Who is looked at closely: the nearest of all, and those in `slots`. With the remote cosine of who has one.
    fn candidates(
        &self,
        request: &SearchRequest,
        reading: &Reading,
        filter: &Filter<'_>,
        keep: &impl Fn(&str) -> bool,
        slots: FxHashSet<u32>,
    ) -> Vec<(Candidate, Option<f32>)> {
        let limit = request.top_k.max(if request.weighted { WEIGHTED_CANDIDATES } else { CANDIDATES });
        let mut best = Best::new(limit);
        let mut remotes = Best::new(limit);
        let segments: Vec<_> = self.segments.read().clone();
        // `keep` may wait for a lock of the caller's, so it is asked while none of ours is held.
        let mut passed = Vec::new();
        for (first, segment) in (0..).step_by(SEGMENT).zip(&segments) {
            segment.read().scan(first, &reading.question, filter, best.floor(), &mut passed);
            passed.drain(..).filter(|one: &Candidate| keep(&one.entry.id)).for_each(|one| best.push(one));
            if let Some(question) = &reading.remote {
                segment.read().scan_remote(first, question, filter, remotes.floor(), &mut passed);
                passed.drain(..).filter(|one: &Candidate| keep(&one.entry.id)).for_each(|one| remotes.push(one));
            }
        }
        let mut found = best.into_found();
        let mut seen: FxHashSet<u32> = found.iter().map(|candidate| candidate.slot).collect();
        let by_remote: Vec<u32> = remotes.into_found().into_iter().map(|candidate| candidate.slot).collect();
        // By number, so that what is found does not depend on the order of a hash.
        let mut further: Vec<u32> = slots.into_iter().chain(by_remote).filter(|slot| seen.insert(*slot)).collect();
        further.sort_unstable();
        for slot in further {
            let Some(segment) = segments.get(slot as usize / SEGMENT) else { continue };
            let one = segment.read().candidate(slot, &reading.question);
            found.extend(one.filter(|one| filter.admits(&one.entry) && keep(&one.entry.id)));
        }
        found
            .into_iter()
            .map(|candidate| {
                let cosine = reading.remote.as_ref().and_then(|question| {
                    let segment = segments.get(candidate.slot as usize / SEGMENT)?.read();
                    let remote = segment.remote(candidate.slot as usize % SEGMENT)?;
                    // Vectors of another model are of another width.
                    (remote.len() == question.len()).then(|| cosine(question, remote))
                });
                (candidate, cosine)
            })
            .collect()
    }

    /// The parts an agent's similarity for a query is made of; for benches and tests.
    pub fn explain(&self, query: &str, id: &str) -> Option<Parts> {
        let table = Table::shared();
        let names = self.names.read();
        let place = names.by_id.get(id)?;
        let reading = Reading::new(query, table, &names.lexicon, None);
        let cosine = self.segment(place.slot).read().cosine(place.slot as usize % SEGMENT, &reading.question);
        Some(reading.weigh(&place.entry.items, cosine, table, &mut Memory::default()))
    }

    /// Keeps a vector of the remote embedder, unless the agent went meanwhile. Whether it was kept.
    pub(super) fn set_remote(&self, id: &str, vector: Remote) -> bool {
        let names = self.names.write();
        let Some(slot) = names.by_id.get(id).map(|place| place.slot) else { return false };
        self.segment(slot).write().set_remote(slot as usize % SEGMENT, vector);
        true
    }

    /// The vector of the remote embedder that an agent has.
    pub(super) fn remote_of(&self, id: &str) -> Option<Remote> {
        let slot = self.names.read().by_id.get(id)?.slot;
        self.segment(slot).read().remote(slot as usize % SEGMENT).cloned()
    }

    fn segment(&self, slot: u32) -> Arc<RwLock<Segment>> {
        let at = slot as usize / SEGMENT;
        if let Some(segment) = self.segments.read().get(at) {
            return Arc::clone(segment);
        }
        let mut segments = self.segments.write();
        while segments.len() <= at {
            segments.push(Arc::default());
        }
        Arc::clone(&segments[at])
    }
}

impl Names {
    fn forget(&mut self, place: &Place) {
        self.lexicon.remove(place.slot, &place.entry.items);
        for key in &place.entry.keys {
            if let Some(slots) = self.by_key.get_mut(key.as_str()) {
                slots.remove(&place.slot);
                if slots.is_empty() {
                    self.by_key.remove(key.as_str());
                }
            }
        }
    }

    /// The agents whose id or name the question is or holds.
    fn named(&self, query: &str, reading: &Reading, certain: &mut FxHashMap<u32, f32>) {
        let mut take = |slot: u32, least: f32| {
            let known = certain.entry(slot).or_insert(least);
            *known = known.max(least);
        };
        let slots = |key: &str| self.by_key.get(key).into_iter().flatten().copied().take(BY_WORD);
        if let Some(place) = self.by_id.get(query.trim()) {
            take(place.slot, ITS_ID);
        }
        slots(&reading.key).for_each(|slot| take(slot, ITS_NAME));
        if let Some(mended) = &reading.mended {
            slots(mended).for_each(|slot| take(slot, NEARLY));
        }
        // A single plain word is more often meant as a word.
        for word in query.split_whitespace().take(BY_WORD) {
            let word = word.trim_matches(|c: char| !c.is_alphanumeric());
            if word.contains(['-', '_', '.']) {
                if let Some(place) = self.by_id.get(word) {
                    take(place.slot, NEARLY);
                } else {
                    slots(&key(word)).for_each(|slot| take(slot, NEARLY));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(id: &str, name: &str, brief: &str, capabilities: &[&str]) -> Registration {
        Registration {
            agent_id: id.into(),
            name: name.into(),
            agent_type: "testing".into(),
            context_brief: brief.into(),
            capabilities: capabilities.iter().map(|text| (*text).to_owned()).collect(),
            ..Registration::default()
        }
    }

    fn guide() -> SearchIndex {
        let index = SearchIndex::new();
        let mine = agent(
            "my-testing-agent",
            "My Testing Agent",
            "A testing agent for data processing and file conversion",
            &["data-processing", "file-conversion", "text-analysis"],
        );
        index.insert(&mine);
        index.insert(&agent(
            "test-lifecycle-agent",
            "Test Lifecycle Agent",
            "Test agent for lifecycle testing",
            &["test"],
        ));
        index.insert(&agent("sniffer", "Sniffer", "Watches network traffic for intrusions", &["packet-capture"]));
        index
    }

    fn ask(index: &SearchIndex, query: &str) -> Vec<Hit> {
        request(index, |request| request.query = query.into())
    }

    fn request(index: &SearchIndex, set: impl Fn(&mut SearchRequest)) -> Vec<Hit> {
        let mut request = SearchRequest {
            query: String::new(),
            top_k: 10,
            min_similarity: 0.5,
            capabilities: None,
            weighted: false,
            agent_type: None,
        };
        set(&mut request);
        index.query(&request, |_| true, |_| 0.0)
    }

    fn first(hits: &[Hit]) -> (&str, f64) {
        hits.first().map_or(("", 0.0), |hit| (&hit.id, hit.similarity))
    }

    /// Rules: REG-199, REG-040
    #[test]
    fn the_questions_of_the_guide_find_the_agents_of_the_guide() {
        let index = guide();
        for query in ["find agents that can process text files", "agents with data-processing capability"] {
            let hits = ask(&index, query);
            assert!(first(&hits).0 == "my-testing-agent" && first(&hits).1 > 0.5, "{query}: {hits:?}");
        }
        let hits = ask(&index, "test lifecycle");
        assert!(first(&hits).0 == "test-lifecycle-agent" && first(&hits).1 > 0.5, "{hits:?}");
        let hits = ask(&index, "network traffic intrusions");
        assert_eq!(first(&hits).0, "sniffer");
        assert!(ask(&index, "recipe for chocolate cake").is_empty());
    }
}
