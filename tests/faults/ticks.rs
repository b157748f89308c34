//! What the agents of `ticker.py` said, checked as it comes in.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use arcp::{Error, ErrorCode, JobEvent, JobHandle};
use serde_json::Value;
use tokio::time::timeout;

use crate::support::BOUND;

/// One job's ticks: `(life, how many of it)`, in the order they came. Within a life they count from 0 without a gap and
/// without doubles, and a life that is over says nothing more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticks(pub(crate) Vec<(u64, u64)>);

impl Ticks {
    pub(crate) fn take(&mut self, job: &str, message: &str) {
        let (life, index) = message.split_once(' ').unwrap_or_else(|| panic!("{job} said {message:?}"));
        let (life, index): (u64, u64) = (life.parse().unwrap(), index.parse().unwrap());
        let last = self.0.last().copied();
        if last.is_none_or(|(before, _)| before < life) {
            self.0.push((life, 0));
        }
        let (now, count) = self.0.last_mut().unwrap();
        assert_eq!((life, index), (*now, *count), "{job}: out of order after {last:?}");
        *count += 1;
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

/// How a job ended: its result, or the code and the flag of its error.
pub(crate) type Ended = Result<Value, (ErrorCode, bool)>;

/// The end as the client tells it; anything but the job's own end is a failure of the test.
pub(crate) async fn end_of(handle: &JobHandle) -> Ended {
    match timeout(BOUND, handle.result()).await.expect("the job did not end") {
        Ok(result) => Ok(serde_json::from_str(result.result.expect("an inline result").get()).unwrap()),
        Err(Error::Protocol(error)) => Err((error.code, error.retryable)),
        Err(other) => panic!("{}: {other}", handle.job_id()),
    }
}

/// What one job told one client.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) ticks: Ticks,
    /// The session's numbers its events had.
    pub(crate) numbers: BTreeSet<u64>,
    pub(crate) ended: Ended,
}

/// Takes everything a job says until it has ended, and counts what came.
pub(crate) async fn follow(handle: &JobHandle, seen: &AtomicU64) -> Told {
    let (mut ticks, mut numbers, mut batch) = (Ticks::default(), BTreeSet::new(), Vec::<JobEvent>::new());
    while handle.next_events(256, &mut batch).await {
        for event in batch.drain(..) {
            let again = !numbers.insert(event.event_seq);
            assert!(!again, "{}: number {} came twice", handle.job_id(), event.event_seq);
            if event.kind() == "log" {
                let body: Value = serde_json::from_str(event.body()).unwrap();
                ticks.take(handle.job_id(), body["message"].as_str().unwrap());
                seen.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    assert_eq!(handle.dropped(), 0, "{}", handle.job_id());
    Told { ticks, numbers, ended: end_of(handle).await }
}
