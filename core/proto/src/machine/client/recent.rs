//! A published runtime numbers each subscription by itself, so that numbers of a session repeat (section 8.2 of the
//! contract). Message ids tell such a repeat from a message that came twice.

/// So many messages are remembered; a power of two.
const REMEMBERED: usize = 1024;

/// The latest numbers and what came under them.
#[derive(Debug)]
pub(super) struct Recent {
    /// By number while numbers are unique; by id from then on.
    slots: Vec<(u64, u64)>,
    pub(super) repeats_numbers: bool,
}

impl Recent {
    pub(super) fn new() -> Self {
        Recent { slots: vec![(0, 0); REMEMBERED], repeats_numbers: false }
    }

    /// A message came under a number that was not seen before.
    pub(super) fn note(&mut self, seq: u64, id: &str) {
        self.slots[place(seq)] = (seq, digest(id));
    }

    /// Whether this number is known to have carried another message.
    pub(super) fn was_another(&self, seq: u64, id: &str) -> bool {
        let (known, digest_of_known) = self.slots[place(seq)];
        known == seq && digest_of_known != digest(id)
    }

    /// From now on ids alone count.
    pub(super) fn go_by_ids(&mut self) {
        if self.repeats_numbers {
            return;
        }
        let known = std::mem::replace(&mut self.slots, vec![(0, 0); REMEMBERED]);
        self.repeats_numbers = true;
        for (_, id) in known {
            self.slots[place(id)] = (0, id);
        }
    }

    /// Whether this message did not come lately.
    pub(super) fn is_new(&mut self, id: &str) -> bool {
        let id = digest(id);
        let slot = &mut self.slots[place(id)];
        let new = slot.1 != id;
        *slot = (0, id);
        new
    }
}

fn place(key: u64) -> usize {
    (key % REMEMBERED as u64) as usize
}

/// FNV-1a; ids are the peer's own, so nobody gains by making two alike.
fn digest(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
