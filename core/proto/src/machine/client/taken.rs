//! Which numbers the application has taken: an ack names the highest below which none is missing.

use std::collections::VecDeque;

/// Numbers taken out of order, as handles are read at their own pace.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Every number up to here was taken.
    through: u64,
    /// Whether `through + 1`, `through + 2`, … were taken.
    above: VecDeque<bool>,
}

impl Taken {
    /// Everything up to here was taken before.
    pub(super) fn from(through: u64) -> Self {
        Taken { through, ..Taken::default() }
    }

    pub(super) fn through(&self) -> u64 {
        self.through
    }

    /// `seq` was taken; again, or of a past, it changes nothing.
    pub(super) fn take(&mut self, seq: u64) {
        let Some(place) = seq.checked_sub(self.through + 1).and_then(|place| usize::try_from(place).ok()) else {
            return;
        };
        if place >= self.above.len() {
            self.above.resize(place + 1, false);
        }
        self.above[place] = true;
        while self.above.front() == Some(&true) {
            self.above.pop_front();
            self.through += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_missing_holds_the_others_back() {
        let mut taken = Taken::default();
        for (seq, through) in [(2, 0), (4, 0), (1, 2), (1, 2), (3, 4)] {
            taken.take(seq);
            assert_eq!(taken.through(), through);
        }
    }
}
