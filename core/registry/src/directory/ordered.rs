//! A list of agents in the order they came, of which any stretch is found without walking there.

/// Entries of one chunk at most.
const CHUNK: usize = 512;

/// Slots ordered by the sequence number of who sits in them. `seq` arguments look that number up.
#[derive(Debug, Default)]
pub(crate) struct Ordered {
    chunks: Vec<Vec<u32>>,
    len: usize,
}

impl Ordered {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The chunk that holds this number, or would.
    fn chunk_of(&self, number: u64, seq: &impl Fn(u32) -> u64) -> usize {
        self.chunks.partition_point(|chunk| chunk.first().is_some_and(|first| seq(*first) <= number)).saturating_sub(1)
    }

    /// Adds a slot that is not in it.
    pub(crate) fn insert(&mut self, slot: u32, seq: impl Fn(u32) -> u64) {
        let number = seq(slot);
        self.len += 1;
        let at = self.chunk_of(number, &seq);
        let last = self.chunks.len().saturating_sub(1);
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(vec![slot]);
            return;
        };
        let place = chunk.partition_point(|other| seq(*other) < number);
        if chunk.len() < CHUNK {
            chunk.insert(place, slot);
        } else if at == last && place == chunk.len() {
            // The usual case: whoever comes last starts a chunk, and full ones stay full.
            self.chunks.push(vec![slot]);
        } else {
            let mut second = chunk.split_off(CHUNK / 2);
            match place.checked_sub(CHUNK / 2) {
                Some(place) => second.insert(place, slot),
                None => chunk.insert(place, slot),
            }
            self.chunks.insert(at + 1, second);
        }
    }

    /// Takes a slot out; nothing happens when it is not in it.
    pub(crate) fn remove(&mut self, slot: u32, seq: impl Fn(u32) -> u64) {
        let number = seq(slot);
        let at = self.chunk_of(number, &seq);
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        let place = chunk.partition_point(|other| seq(*other) < number);
        if chunk.get(place) != Some(&slot) {
            return;
        }
        chunk.remove(place);
        self.len -= 1;
        if chunk.is_empty() {
            self.chunks.remove(at);
        } else if chunk.len() < CHUNK / 4 && at > 0 && self.chunks[at - 1].len() + self.chunks[at].len() <= CHUNK / 2 {
            let chunk = self.chunks.remove(at);
            self.chunks[at - 1].extend(chunk);
        }
    }

    /// The slots from this position on, in order.
    pub(crate) fn from(&self, mut offset: usize) -> impl Iterator<Item = u32> + '_ {
        let mut start = 0;
        for chunk in &self.chunks {
            if offset < chunk.len() {
                break;
            }
            offset -= chunk.len();
            start += 1;
        }
        self.chunks[start..].iter().flatten().skip(offset).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.chunks.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_an_ordered_set(steps in prop::collection::vec((0_u32..2000, any::<bool>()), 1..3000), offset in 0_usize..2500) {
            let seq = |slot: u32| u64::from(slot) * 3;
            let mut set = Ordered::default();
            let mut model = BTreeSet::new();
            for (slot, adds) in steps {
                if adds {
                    if model.insert(slot) {
                        set.insert(slot, seq);
                    }
                } else {
                    set.remove(slot, seq);
                    model.remove(&slot);
                }
            }
            prop_assert_eq!(set.len(), model.len());
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert!(set.from(offset).eq(model.iter().copied().skip(offset)));
        }
    }

    #[test]
    fn full_chunks_are_split() {
        let mut set = Ordered::default();
        for slot in (0..10_000).step_by(2) {
            set.insert(slot, u64::from);
        }
        for slot in (1..10_000).step_by(2) {
            set.insert(slot, u64::from);
        }
        assert!(set.iter().eq(0..10_000));
        assert!(set.from(9_990).eq(9_990..10_000));
        for slot in 0..10_000 {
            set.remove(slot, u64::from);
        }
        assert_eq!(set.len(), 0);
        assert_eq!(set.chunks.len(), 0);
    }
}
