//! A handle's events on their way to the application.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use arcp_proto::machine::client::JobEvent;
use arcp_proto::message::JobResult;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::Error;

/// How many events a handle that nobody iterates keeps; beyond it the oldest go.
const UNREAD_EVENTS: usize = 10_000;

/// How a job ended for its client.
pub type Ended = Result<Box<JobResult>, Error>;

/// One handle's events and end. Events wait here until they are taken; the end stays.
#[derive(Debug, Default)]
pub struct EventQueue {
    inner: Mutex<Inner>,
    /// Wakes who waits for the end; one that stops waiting leaves nothing behind.
    over: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<JobEvent>,
    /// While somebody reads nothing is dropped, and what is taken counts as processed.
    lossless: bool,
    /// How many of the events, the newest, came while somebody read.
    awaited: usize,
    dropped: u64,
    ended: Option<Ended>,
    /// Who waits for events.
    reader: Option<Waker>,
}

impl Inner {
    fn drop_oldest(&mut self) {
        let surplus = self.events.len().saturating_sub(UNREAD_EVENTS);
        self.events.drain(..surplus);
        self.dropped += surplus as u64;
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
    pub(crate) fn push(&self, event: JobEvent, wake: &mut Vec<Waker>) -> Pushed {
        let mut inner = self.inner.lock();
        inner.events.push_back(event);
        let pushed = if inner.lossless {
            inner.awaited += 1;
            Pushed::Kept
        } else {
            inner.drop_oldest();
            Pushed::Unread
        };
        wake.extend(inner.reader.take());
        pushed
    }

    /// The first end counts. Who is to be woken goes into `wake`.
    pub(crate) fn end(&self, ended: Ended, wake: &mut Vec<Waker>) {
        let mut inner = self.inner.lock();
        if inner.ended.is_none() {
            inner.ended = Some(ended);
        }
        wake.extend(inner.reader.take());
        drop(inner);
        self.over.notify_waiters();
    }

    /// Moves up to `max` events into `batch`. Ready with `true` when there are some, with `false` once the job has
    /// ended and all were taken. One reader at a time is woken. `awaited` grows by those that were waited for.
    pub(crate) fn poll_batch(
        &self,
        cx: &mut Context<'_>,
        max: usize,
        batch: &mut Vec<JobEvent>,
        awaited: &mut usize,
    ) -> Poll<bool> {
        let mut inner = self.inner.lock();
        inner.lossless = true;
        let taken = inner.events.len().min(max);
        batch.extend(inner.events.drain(..taken));
        let left = inner.awaited.min(inner.events.len());
        *awaited += inner.awaited - left;
        inner.awaited = left;
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
    /// numbers of the events that were waited for.
    pub(crate) fn stop_reading(&self) -> Vec<u64> {
        let mut inner = self.inner.lock();
        inner.lossless = false;
        inner.reader = None;
        let awaited = std::mem::take(&mut inner.awaited);
        let unawaited = inner.events.len() - awaited;
        let numbers = inner.events.iter().skip(unawaited).map(|event| event.event_seq).collect();
        inner.drop_oldest();
        numbers
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
