//! A handle's events on their way to the application.

use std::collections::VecDeque;
use std::fmt;
use std::task::{Context, Poll, Waker};

use arcp_proto::machine::client::JobEvent;
use arcp_proto::message::JobResult;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::Error;

/// How many events a handle that nobody iterates keeps; beyond it the oldest go.
const UNREAD_EVENTS: usize = 100_000;
/// How many bytes of them.
const UNREAD_BYTES: usize = 16 << 20;

/// How a job ended for its client.
pub type Ended = Result<Box<JobResult>, Error>;

/// Is told how a job ended.
pub(crate) type Then = Box<dyn FnOnce(Ended) + Send>;

/// One handle's events and end. Events wait here until they are taken; the end stays.
#[derive(Debug, Default)]
pub struct EventQueue {
    inner: Mutex<Inner>,
    /// Wakes who waits for the end; one that stops waiting leaves nothing behind.
    over: Notify,
}

/// Whom to turn to once no lock is held.
pub(crate) enum Wakeup {
    Reader(Waker),
    Told(Then, Ended),
}

impl Wakeup {
    pub(crate) fn wake(self) {
        match self {
            Wakeup::Reader(reader) => reader.wake(),
            Wakeup::Told(then, ended) => then(ended),
        }
    }
}

/// Who is to be told of the end, by numbers of their own.
#[derive(Default)]
struct Listeners {
    next: u64,
    listeners: Vec<(u64, Then)>,
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").field("count", &self.listeners.len()).finish_non_exhaustive()
    }
}

/// How much waits for readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<JobEvent>,
    /// While somebody reads nothing is dropped, and what is taken counts as processed.
    lossless: bool,
    /// How many of the events, the newest, came while somebody read.
    awaited: usize,
    /// What all the events weigh.
    bytes: usize,
    dropped: u64,
    /// The bytes of a streamed result.
    assembled: Option<Bytes>,
    ended: Option<Ended>,
    /// Who waits for events.
    reader: Option<Waker>,
    listeners: Listeners,
}

impl Inner {
    fn drop_oldest(&mut self) {
        while self.events.len() > UNREAD_EVENTS || self.bytes > UNREAD_BYTES {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes -= oldest.cost();
            self.dropped += 1;
        }
    }
}

/// What became of an event that was pushed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// A reader will take it.
    Kept,
    /// Nobody reads: it counts as processed already.
    Unread,
}

impl EventQueue {
    /// Appends an event. Who is to be woken goes into `wake`, for the caller to wake without its locks.
    pub(crate) fn push(&self, event: JobEvent, wake: &mut Vec<Wakeup>) -> Pushed {
        let mut inner = self.inner.lock();
        inner.bytes += event.cost();
        inner.events.push_back(event);
        let pushed = if inner.lossless {
            inner.awaited += 1;
            Pushed::Kept
        } else {
            inner.drop_oldest();
            Pushed::Unread
        };
        wake.extend(inner.reader.take().map(Wakeup::Reader));
        pushed
    }

    /// So many events found no room before this handle existed.
    pub(crate) fn missed(&self, count: u64) {
        self.inner.lock().dropped += count;
    }

    /// The whole of a streamed result.
    pub(crate) fn assembled(&self, bytes: Bytes) {
        self.inner.lock().assembled = Some(bytes);
    }

    /// The bytes of a streamed result, after its end.
    pub fn result_bytes(&self) -> Option<Bytes> {
        self.inner.lock().assembled.clone()
    }

    /// The first end counts. Who is to be woken goes into `wake`.
    pub(crate) fn end(&self, ended: Ended, wake: &mut Vec<Wakeup>) {
        let mut inner = self.inner.lock();
        let ended = inner.ended.get_or_insert(ended).clone();
        wake.extend(inner.reader.take().map(Wakeup::Reader));
        let told = std::mem::take(&mut inner.listeners.listeners);
        wake.extend(told.into_iter().map(|(_, then)| Wakeup::Told(then, ended.clone())));
        drop(inner);
        self.over.notify_waiters();
    }

    /// How it ended, if it has.
    pub(crate) fn end_now(&self) -> Option<Ended> {
        self.inner.lock().ended.clone()
    }

    /// Tells `then` of the end, at once if it has come. The number is for [`EventQueue::stop_listening`].
    pub(crate) fn when_ended(&self, then: Then) -> Option<u64> {
        let mut inner = self.inner.lock();
        let Some(ended) = inner.ended.clone() else {
            let number = inner.listeners.next;
            inner.listeners.next += 1;
            inner.listeners.listeners.push((number, then));
            return Some(number);
        };
        drop(inner);
        then(ended);
        None
    }

    /// Whoever listened under this number wants to hear nothing any more.
    pub(crate) fn stop_listening(&self, number: u64) {
        let mut inner = self.inner.lock();
        let listeners = &mut inner.listeners.listeners;
        if let Some(place) = listeners.iter().position(|(listener, _)| *listener == number) {
            let dropped = listeners.swap_remove(place);
            // What it holds may call back.
            drop(inner);
            drop(dropped);
        }
    }

    /// Moves up to `max` events into `batch`. Ready with `true` when there are some, with `false` once the job has
    /// ended and all were taken. One reader at a time is woken. `awaited` grows by those that were waited for.
    pub(crate) fn poll_batch(
        &self,
        cx: &mut Context<'_>,
        max: usize,
        batch: &mut Vec<JobEvent>,
        awaited: &mut Load,
    ) -> Poll<bool> {
        let mut inner = self.inner.lock();
        inner.lossless = true;
        let taken = inner.events.len().min(max);
        let unawaited = inner.events.len() - inner.awaited;
        let start = batch.len();
        batch.extend(inner.events.drain(..taken));
        for (place, event) in batch[start..].iter().enumerate() {
            let cost = event.cost();
            inner.bytes -= cost;
            if place >= unawaited {
                inner.awaited -= 1;
                awaited.events += 1;
                awaited.bytes += cost;
            }
        }
        if taken > 0 {
            return Poll::Ready(true);
        }
        if inner.ended.is_some() {
            return Poll::Ready(false);
        }
        inner.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nobody reads any more: what waits, and what comes, counts as processed, and only the newest is kept. Returns the
    /// positions of the events that were waited for, and what they weigh.
    pub(crate) fn stop_reading(&self) -> (Load, Vec<u64>) {
        let mut inner = self.inner.lock();
        inner.lossless = false;
        inner.reader = None;
        let awaited = std::mem::take(&mut inner.awaited);
        let unawaited = inner.events.len() - awaited;
        let mut load = Load::default();
        let mut positions = Vec::with_capacity(awaited);
        for event in inner.events.iter().skip(unawaited) {
            load.events += 1;
            load.bytes += event.cost();
            positions.push(event.position);
        }
        inner.drop_oldest();
        (load, positions)
    }

    /// How many events were dropped before anybody read.
    pub fn dropped(&self) -> u64 {
        self.inner.lock().dropped
    }

    /// Waits for the end.
    pub async fn ended(&self) -> Ended {
        loop {
            // Registered before the question, so that no end is missed.
            let over = self.over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            if let Some(ended) = self.inner.lock().ended.clone() {
                return ended;
            }
            over.await;
        }
    }
}
