//! What waits for the writer. The machine bounds it: it takes nothing new while too much is not stored.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arcp_proto::machine::kept::StoreOp;

/// One thing for the writer, in the order it was asked for.
#[derive(Debug)]
pub(super) enum Item {
    Apply(u64, StoreOp),
    History { request: u64, job_id: Arc<str>, after_source_seq: u64 },
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Whether the writer sleeps: only then is waking it worth a system call.
    idle: bool,
    closing: bool,
}

/// The queue, shared by the store's callers and its writer.
#[derive(Debug, Default)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds these, for one transaction, unless the store is closed.
    pub(super) fn push(&self, items: impl Iterator<Item = Item>) {
        let mut queue = self.lock();
        if queue.closing {
            return items.for_each(drop);
        }
        queue.items.extend(items);
        if queue.idle && !queue.items.is_empty() {
            queue.idle = false;
            drop(queue);
            self.wake.notify_one();
        }
    }

    /// Nothing may follow.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
    }

    /// Everything that waits, and whether the store is to be closed. Without a `pause` it sleeps until there is
    /// something; with one it sleeps that long whatever comes, but for the news of the close.
    pub(super) fn take(&self, pause: Option<Duration>, knows_of_close: bool) -> (VecDeque<Item>, bool) {
        let mut queue = self.lock();
        match pause {
            None => {
                while queue.items.is_empty() && !queue.closing {
                    queue.idle = true;
                    queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
                queue.idle = false;
            }
            Some(pause) => {
                // A store about to be closed is impatient.
                let pause = if knows_of_close { pause.min(Duration::from_millis(200)) } else { pause };
                let until = Instant::now() + pause;
                while knows_of_close || !queue.closing {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    queue = self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        (std::mem::take(&mut queue.items), queue.closing)
    }
}
