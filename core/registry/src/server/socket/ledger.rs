//! What sockets hold of long frames. A frame is shared by all that send it, but each slow socket may be at another: a hundred
//! of them would hold a hundred lists of all agents. Beyond a bound, those at the oldest are let go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::frame::SharedFrame;

/// Shorter frames are not counted.
const SHORT: usize = 64 << 10;
/// Bytes of frames under way at once, though two are always let be.
const MOST: usize = 128 << 20;

/// The long frames under way. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Ledger(Arc<Mutex<Frames>>);

#[derive(Debug)]
struct Frames {
    most: usize,
    total: usize,
    next: u64,
    /// By where its bytes lie, which is its own as long as somebody holds it.
    numbers: HashMap<usize, u64>,
    /// The oldest first.
    frames: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    place: usize,
    bytes: usize,
    holders: usize,
    over: watch::Sender<bool>,
}

/// A socket's part in a frame; given back when dropped.
#[derive(Debug)]
pub(super) struct Hold {
    ledger: Ledger,
    number: u64,
    over: watch::Receiver<bool>,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger::new(MOST)
    }
}

impl Ledger {
    fn new(most: usize) -> Self {
        let frames = Frames { most, total: 0, next: 0, numbers: HashMap::new(), frames: BTreeMap::new() };
        Ledger(Arc::new(Mutex::new(frames)))
    }

    /// To be called before a frame is sent; `None` for a short one.
    pub(super) fn hold(&self, frame: &SharedFrame) -> Option<Hold> {
        let (place, bytes) = (frame.bytes().as_ptr() as usize, frame.bytes().len());
        if bytes < SHORT {
            return None;
        }
        let mut frames = self.0.lock();
        if let Some(number) = frames.numbers.get(&place).copied()
            && let Some(entry) = frames.frames.get_mut(&number)
        {
            entry.holders += 1;
            return Some(Hold { ledger: self.clone(), number, over: entry.over.subscribe() });
        }
        let number = frames.next;
        frames.next += 1;
        frames.total += bytes;
        let (over, receiver) = watch::channel(false);
        frames.numbers.insert(place, number);
        frames.frames.insert(number, Entry { place, bytes, holders: 1, over });
        while frames.total > frames.most && frames.frames.len() > 2 {
            let Some(oldest) = frames.frames.keys().next().copied() else { break };
            frames.end(oldest);
        }
        drop(frames);
        Some(Hold { ledger: self.clone(), number, over: receiver })
    }
}

impl Frames {
    fn end(&mut self, number: u64) {
        if let Some(entry) = self.frames.remove(&number) {
            self.numbers.remove(&entry.place);
            self.total -= entry.bytes;
            entry.over.send_replace(true);
        }
    }
}

/// Waits until a socket is to let its frame go; for ever without one.
pub(super) async fn over(hold: Option<&mut Hold>) {
    match hold {
        // The sender goes with its entry, after it has spoken.
        Some(hold) => drop(hold.over.wait_for(|over| *over).await),
        None => std::future::pending().await,
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut frames = self.ledger.0.lock();
        let Some(entry) = frames.frames.get_mut(&self.number) else { return };
        entry.holders -= 1;
        if entry.holders == 0 {
            frames.end(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn frame(bytes: usize) -> SharedFrame {
        SharedFrame::text(&"x".repeat(bytes))
    }

    fn is_over(hold: &mut Hold) -> bool {
        over(Some(hold)).now_or_never().is_some()
    }

    #[test]
    fn a_frame_counts_once_however_many_send_it() {
        let ledger = Ledger::new(1 << 20);
        let list = frame(500_000);
        let mut holds: Vec<Hold> = (0..100).map(|_| ledger.hold(&list.clone()).unwrap()).collect();
        assert!(ledger.0.lock().total < 501_000);
        assert!(holds.iter_mut().all(|hold| !is_over(hold)));
        drop(holds);
        let frames = ledger.0.lock();
        assert_eq!((frames.total, frames.frames.len(), frames.numbers.len()), (0, 0, 0));
    }

    #[test]
    fn who_is_at_the_oldest_is_let_go_when_there_are_too_many() {
        let ledger = Ledger::new(1 << 20);
        let lists: Vec<SharedFrame> = (0..10).map(|_| frame(400_000)).collect();
        let mut holds: Vec<Hold> = lists.iter().map(|list| ledger.hold(list).unwrap()).collect();
        let over: Vec<bool> = holds.iter_mut().map(is_over).collect();
        assert_eq!(over.iter().filter(|over| !**over).count(), 2, "{over:?}");
        assert!(!over[8] && !over[9], "the newest are let be");
        assert!(ledger.0.lock().total <= 1 << 20);
        drop(holds);
        assert_eq!(ledger.0.lock().total, 0);
    }

    #[test]
    fn short_frames_do_not_count_and_two_of_any_length_are_let_be() {
        let ledger = Ledger::new(1);
        assert!(ledger.hold(&frame(100)).is_none());
        let (one, two) = (frame(100_000), frame(100_000));
        let mut holds = [ledger.hold(&one).unwrap(), ledger.hold(&two).unwrap()];
        assert!(holds.iter_mut().all(|hold| !is_over(hold)));
    }
}
