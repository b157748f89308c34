//! A host's own event log, told in batches and never waited for (D-33).

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use arcp::store::sqlite::Inspector;
use arcp::{AesGcmSealer, Mirror, Mirrored, SqliteOptions};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::error::ErrorInfo;
use crate::host_request::About;
use crate::port::Port;

/// Entries that may wait; beyond it new messages are left out of the log.
const MOST_WAITING: usize = 16_384;

/// Bytes that may wait.
const MOST_BYTES: usize = 32 << 20;

/// Entries told at once, and about how many bytes.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

/// A log that takes longer for a batch is complained of.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pause after a failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What waits for the log. A batch that fails is told again, so the log must bear to be told twice.
pub(crate) struct HostMirror {
    queue: Mutex<Queue>,
    filled: Arc<Notify>,
    emptied: Notify,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Mirrored>,
    bytes: usize,
    /// Whether a batch is being told.
    telling: bool,
    left_out: u64,
}

impl HostMirror {
    /// Tells the log behind `port` for as long as the port is open.
    pub(crate) fn start(tokio: &Handle, port: Port) -> Arc<Self> {
        let filled = Arc::new(Notify::new());
        let mirror = HostMirror { queue: Mutex::default(), filled: Arc::clone(&filled), emptied: Notify::new() };
        let mirror = Arc::new(mirror);
        let telling = Arc::downgrade(&mirror);
        tokio.spawn(async move {
            // Keeps no mirror alive while it waits.
            while let Some(mirror) = telling.upgrade() {
                match mirror.next() {
                    Some(batch) => mirror.tell(&port, batch).await,
                    None => {
                        drop(mirror);
                        filled.notified().await;
                    }
                }
            }
        });
        mirror
    }

    /// Until everything so far was told.
    pub(crate) async fn flushed(&self, patience: Duration) {
        let all_told = async {
            loop {
                let emptied = self.emptied.notified();
                tokio::pin!(emptied);
                emptied.as_mut().enable();
                {
                    let queue = self.queue.lock();
                    if queue.entries.is_empty() && !queue.telling {
                        return;
                    }
                }
                emptied.await;
            }
        };
        if timeout(patience, all_told).await.is_err() {
            tracing::warn!("the event log was not told of everything in time");
        }
    }

    /// Tells a batch until the log has taken it, or nobody is there any more.
    async fn tell(&self, port: &Port, batch: Vec<Mirrored>) {
        let text = batch.iter().map(entry).collect::<Value>();
        let mut pause = FIRST_PAUSE;
        let mut failed = false;
        loop {
            let asked = port.ask(About::EventLog, &text);
            tokio::pin!(asked);
            // A log that is slow is waited for: told again meanwhile, it would have two at it at once.
            let told = match timeout(PATIENCE, &mut asked).await {
                Ok(told) => told,
                Err(_) => {
                    tracing::error!("the event log gave no answer within {} s", PATIENCE.as_secs());
                    asked.await
                }
            };
            let error = match told {
                Ok(_) => break,
                _ if port.is_closed() => break,
                Err(error) => error.message,
            };
            if !failed {
                failed = true;
                tracing::error!(error, "the event log fails; it is told again what it missed, as far as that is kept");
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let left_out = {
            let mut queue = self.queue.lock();
            queue.telling = false;
            // Told once it has caught up, not for every batch on the way.
            if queue.entries.len() < MOST_WAITING / 2 { std::mem::take(&mut queue.left_out) } else { 0 }
        };
        if left_out > 0 {
            tracing::error!(left_out, "the event log was too slow, and messages are missing from it");
        } else if failed && !port.is_closed() {
            tracing::info!("the event log works again");
        }
        self.emptied.notify_waiters();
    }

    /// What waits, as much of it as is told at once.
    fn next(&self) -> Option<Vec<Mirrored>> {
        let mut queue = self.queue.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Some(entry) = queue.entries.pop_front() else { break };
            bytes += weight(&entry);
            batch.push(entry);
        }
        queue.bytes -= bytes;
        queue.telling = !batch.is_empty();
        (!batch.is_empty()).then_some(batch)
    }
}

impl Drop for HostMirror {
    fn drop(&mut self) {
        self.filled.notify_one();
    }
}

impl Mirror for HostMirror {
    fn push(&self, mirrored: Mirrored) {
        let mut queue = self.queue.lock();
        let weight = weight(&mirrored);
        let full = queue.entries.len() >= MOST_WAITING || queue.bytes + weight > MOST_BYTES;
        // That a session is over is told in any case: there are no more of these than sessions.
        if full && !matches!(mirrored, Mirrored::Drop(_)) {
            queue.left_out += u64::from(matches!(mirrored, Mirrored::Append { .. }));
            return;
        }
        queue.bytes += weight;
        queue.entries.push_back(mirrored);
        if queue.entries.len() == 1 {
            self.filled.notify_one();
        }
    }
}

fn weight(mirrored: &Mirrored) -> usize {
    match mirrored {
        Mirrored::Append { frame, .. } => frame.cost(),
        Mirrored::Release { .. } | Mirrored::Drop(_) => 64,
    }
}

fn entry(mirrored: &Mirrored) -> Value {
    match mirrored {
        Mirrored::Append { session_id, event_seq, frame } => {
            let mut text = Vec::new();
            frame.write(&mut text);
            // As text within the text, so that no number is read and written again on the way.
            let envelope = String::from_utf8(text).ok().and_then(|text| RawValue::from_string(text).ok());
            let envelope = envelope.map(|raw| raw.get().to_owned());
            json!({"append": **session_id, "event_seq": event_seq, "envelope": envelope})
        }
        Mirrored::Release { session_id, through } => json!({"release": **session_id, "through": through}),
        Mirrored::Drop(session_id) => json!({"drop": **session_id}),
    }
}

/// What a database keeps of a session's numbered messages after a number, as JSON texts, and the last number given; none
/// and 0 for a session it does not know.
///
/// # Errors
/// When there is no database at this path, or it cannot be read, also for want of its key.
pub fn read_event_log(
    db: &str,
    key_file: Option<&str>,
    session_id: &str,
    after_seq: u64,
) -> Result<(Vec<String>, u64), ErrorInfo> {
    let mut options = SqliteOptions::default();
    if let Some(file) = key_file {
        options.sealer = Some(Arc::new(AesGcmSealer::from_key_file(file)?));
    }
    let inspector = Inspector::open_with(db, &options)?;
    let mut messages = Vec::new();
    let read = inspector.replay(session_id, after_seq, &mut |kept| {
        let mut text = Vec::new();
        kept.frame().write(&mut text);
        messages.extend(String::from_utf8(text));
        ControlFlow::Continue(())
    });
    match read {
        Ok(replay) => Ok((messages, replay.last_event_seq)),
        Err(error) => match inspector.sessions()?.iter().any(|session| *session.id == *session_id) {
            true => Err(error.into()),
            false => Ok((Vec::new(), 0)),
        },
    }
}
