//! The agents' vectors, a thousand at a time, and the scan over them.

use std::sync::Arc;

use super::lexicon::Item;
use super::table::{DIMENSIONS, product};

/// Agents in a segment. A reader holds one segment at a time, for some microseconds.
pub(super) const SEGMENT: usize = 1024;

/// An agent as it is kept.
pub(super) struct Entry {
    pub(super) id: Arc<str>,
    pub(super) agent_type: Box<str>,
    pub(super) capabilities: Box<[String]>,
    pub(super) items: Box<[Item]>,
    pub(super) keys: Box<[String]>,
    /// Who came first comes first among equals.
    pub(super) order: u64,
}

/// A vector of a remote embedder, of length 1.
pub(super) type Remote = Arc<[f32]>;

/// What is known of a slot without looking at its agent.
#[derive(Clone, Copy, Default)]
struct Mark {
    scale: f32,
    agent_type: u32,
    /// A bit for each capability: a superset has all bits of its subset.
    capabilities: u64,
}

/// Up to [`SEGMENT`] agents.
#[derive(Default)]
pub(super) struct Segment {
    vectors: Vec<[i8; DIMENSIONS]>,
    marks: Vec<Mark>,
    entries: Vec<Option<Arc<Entry>>>,
    remotes: Vec<Option<Remote>>,
}

/// Which agents a question admits.
pub(super) struct Filter<'a> {
    agent_type: Option<(&'a str, u32)>,
    capabilities: &'a [String],
    bits: u64,
}

impl<'a> Filter<'a> {
    pub(super) fn new(agent_type: Option<&'a str>, capabilities: Option<&'a [String]>) -> Self {
        let capabilities = capabilities.unwrap_or_default();
        Self { agent_type: agent_type.map(|name| (name, mark(name))), capabilities, bits: bits(capabilities) }
    }

    fn may_admit(&self, mark: &Mark) -> bool {
        self.agent_type.is_none_or(|(_, hash)| hash == mark.agent_type) && self.bits & !mark.capabilities == 0
    }

    pub(super) fn admits(&self, entry: &Entry) -> bool {
        self.agent_type.is_none_or(|(name, _)| *name == *entry.agent_type)
            && self.capabilities.iter().all(|wanted| entry.capabilities.contains(wanted))
    }
}

/// An agent that may be an answer.
pub(super) struct Candidate {
    /// The cosine by which it was found.
    pub(super) cosine: f32,
    pub(super) slot: u32,
    pub(super) entry: Arc<Entry>,
}

/// The best so many of what was seen.
pub(super) struct Best {
    limit: usize,
    floor: f32,
    found: Vec<Candidate>,
}

impl Best {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, floor: f32::NEG_INFINITY, found: Vec::with_capacity(limit * 2) }
    }

    /// What is less than this is not among the best.
    pub(super) fn floor(&self) -> f32 {
        self.floor
    }

    pub(super) fn push(&mut self, candidate: Candidate) {
        if candidate.cosine >= self.floor {
            self.found.push(candidate);
            if self.found.len() == self.limit * 2 {
                self.cut();
            }
        }
    }

    fn cut(&mut self) {
        if self.found.len() > self.limit {
            self.found.select_nth_unstable_by(self.limit - 1, |a, b| {
                b.cosine.total_cmp(&a.cosine).then(a.entry.order.cmp(&b.entry.order))
            });
            self.found.truncate(self.limit);
            self.floor = self.found.last().map_or(f32::NEG_INFINITY, |last| last.cosine);
        }
    }

    pub(super) fn into_found(mut self) -> Vec<Candidate> {
        self.cut();
        self.found
    }
}

impl Segment {
    pub(super) fn set(&mut self, at: usize, entry: Arc<Entry>, vector: &[f32; DIMENSIONS]) {
        if self.entries.len() <= at {
            self.vectors.resize(at + 1, [0; DIMENSIONS]);
            self.marks.resize(at + 1, Mark::default());
            self.entries.resize(at + 1, None);
            self.remotes.resize(at + 1, None);
        }
        let largest = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let scale = largest / 127.0;
        for (small, x) in self.vectors[at].iter_mut().zip(vector) {
            *small = if scale > 0.0 { (x / scale).round() as i8 } else { 0 };
        }
        self.marks[at] = Mark { scale, agent_type: mark(&entry.agent_type), capabilities: bits(&entry.capabilities) };
        self.entries[at] = Some(entry);
        self.remotes[at] = None;
    }

    pub(super) fn clear(&mut self, at: usize) {
        if let Some(entry) = self.entries.get_mut(at) {
            *entry = None;
            self.remotes[at] = None;
        }
    }

    /// The agent in a slot, as the scan finds it.
    pub(super) fn candidate(&self, slot: u32, question: &Question) -> Option<Candidate> {
        let at = slot as usize % SEGMENT;
        let entry = Arc::clone(self.entries.get(at)?.as_ref()?);
        Some(Candidate { cosine: self.cosine(at, question), slot, entry })
    }

    pub(super) fn remote(&self, at: usize) -> Option<&Remote> {
        self.remotes.get(at)?.as_ref()
    }

    pub(super) fn set_remote(&mut self, at: usize, vector: Remote) {
        if let Some(place) = self.remotes.get_mut(at) {
            *place = Some(vector);
        }
    }

    /// The cosine of one agent, as the scan finds it.
    pub(super) fn cosine(&self, at: usize, question: &Question) -> f32 {
        self.vectors.get(at).map_or(0.0, |vector| question.cosine(vector, self.marks[at].scale))
    }

    /// Looks at every agent by the table's vectors: what is good enough and passes the filter goes to `found`.
    pub(super) fn scan(
        &self,
        first: u32,
        question: &Question,
        filter: &Filter<'_>,
        floor: f32,
        found: &mut Vec<Candidate>,
    ) {
        for (at, (vector, mark)) in self.vectors.iter().zip(&self.marks).enumerate() {
            let cosine = question.cosine(vector, mark.scale);
            if cosine >= floor {
                self.consider(at, first, cosine, filter, found);
            }
        }
    }

    /// Looks at every agent that has a vector of the remote embedder.
    pub(super) fn scan_remote(
        &self,
        first: u32,
        question: &[f32],
        filter: &Filter<'_>,
        floor: f32,
        found: &mut Vec<Candidate>,
    ) {
        for (at, remote) in self.remotes.iter().enumerate() {
            if let Some(remote) = remote {
                let cosine = cosine(question, remote);
                if cosine >= floor {
                    self.consider(at, first, cosine, filter, found);
                }
            }
        }
    }

    fn consider(&self, at: usize, first: u32, cosine: f32, filter: &Filter<'_>, found: &mut Vec<Candidate>) {
        if filter.may_admit(&self.marks[at])
            && let Some(entry) = &self.entries[at]
            && filter.admits(entry)
        {
            // A segment has no more places than a u32.
            found.push(Candidate { cosine, slot: first + at as u32, entry: Arc::clone(entry) });
        }
    }
}

/// A question's vector, ready for the scan.
pub(super) struct Question {
    vector: [i16; DIMENSIONS],
    scale: f32,
}

impl Question {
    pub(super) fn new(vector: &[f32; DIMENSIONS]) -> Self {
        let largest = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let scale = largest / 1023.0;
        let vector = vector.map(|x| if scale > 0.0 { (x / scale).round() as i16 } else { 0 });
        Self { vector, scale }
    }

    fn cosine(&self, other: &[i8; DIMENSIONS], scale: f32) -> f32 {
        // Widened first, so that the products are of 16 bits each: a third faster than all at once.
        let mut wide = [0_i16; DIMENSIONS];
        for (wide, narrow) in wide.iter_mut().zip(other) {
            *wide = i16::from(*narrow);
        }
        product(&self.vector, &wide) as f32 * self.scale * scale
    }
}

/// The cosine of two vectors of length 1; 0 when they are not of one space.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return 0.0;
    }
    // Eight sums that do not wait for each other.
    let mut sums = [0.0_f32; 8];
    let (heads_a, tail_a) = a.as_chunks::<8>();
    let (heads_b, tail_b) = b.as_chunks::<8>();
    for (a, b) in heads_a.iter().zip(heads_b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + tail_a.iter().zip(tail_b).map(|(a, b)| a * b).sum::<f32>()
}

fn mark(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn bits(capabilities: &[String]) -> u64 {
    capabilities.iter().fold(0, |bits, text| bits | 1 << (mark(text) >> 26))
}
