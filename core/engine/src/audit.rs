//! Where audit entries go: a file of JSON lines, the host's own log, or any other sink.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use arcp_proto::machine::audit::AuditEntry;
use arcp_proto::time::Timestamp;

use crate::clock::Clock;
use crate::span::say;

/// Takes audit entries.
pub trait AuditSink: Send + Sync + 'static {
    /// Takes one entry. Called where decisions are made: it must not block.
    fn record(&self, entry: &AuditEntry);
}

/// Entries that may wait for the file; what comes beyond is counted, and the count written.
pub const MAX_WAITING: usize = 65_536;

/// Lines written at once, in bytes.
const BATCH: usize = 64 * 1024;

/// Writes entries as lines of JSON to the end of a file, by a thread of its own.
///
/// A file that is made is for its owner only; one that exists keeps its mode. The file is only appended to, so it can be
/// rotated by copying and truncating it. Dropping this writes what waits.
#[derive(Debug)]
pub struct AuditFile {
    queue: Option<SyncSender<String>>,
    lost: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl AuditFile {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When it cannot be opened for appending, or no thread can be started.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file: File = options.open(path)?;
        AuditFile::over(file, MAX_WAITING)
    }

    fn over(file: impl Write + Send + 'static, waiting: usize) -> std::io::Result<Self> {
        let (queue, entries) = sync_channel(waiting);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { file, entries, lost: Arc::clone(&lost), clock: Clock::new(), torn: false };
        let writer = std::thread::Builder::new().name("arcp-audit".into()).spawn(move || writer.run())?;
        Ok(AuditFile { queue: Some(queue), lost, writer: Some(writer) })
    }
}

impl AuditSink for AuditFile {
    fn record(&self, entry: &AuditEntry) {
        let kept = self.queue.as_ref().is_some_and(|queue| queue.try_send(entry.to_json()).is_ok());
        if !kept {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for AuditFile {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

struct Writer<W> {
    file: W,
    entries: Receiver<String>,
    lost: Arc<AtomicU64>,
    clock: Clock,
    /// A write failed, perhaps inside a line.
    torn: bool,
}

impl<W: Write> Writer<W> {
    fn run(mut self) {
        let mut lines = String::with_capacity(BATCH);
        while let Ok(first) = self.entries.recv() {
            let mut count = 0;
            let more = std::iter::once(first).chain(std::iter::from_fn(|| self.entries.try_recv().ok()));
            for line in more {
                lines.push_str(&line);
                lines.push('\n');
                count += 1;
                if lines.len() >= BATCH {
                    break;
                }
            }
            self.write(&mut lines, count);
        }
        self.write(&mut lines, 0);
    }

    /// Writes these lines, and after them how many are missing.
    fn write(&mut self, lines: &mut String, count: u64) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            lines.push_str(&missing(self.clock.now().wall, lost));
        }
        if self.torn && !lines.is_empty() {
            lines.insert(0, '\n');
        }
        if let Err(error) = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.flush()) {
            if !self.torn {
                say(|| tracing::error!(%error, "the audit log cannot be written"));
            }
            self.torn = true;
            self.lost.fetch_add(lost + count, Ordering::Relaxed);
        } else if !lines.is_empty() {
            self.torn = false;
        }
        lines.clear();
    }
}

fn missing(at: Timestamp, entries: u64) -> String {
    AuditEntry::dropped(at, entries).to_json() + "\n"
}

/// Reports entries to the host's own log, as events of the target `arcp::audit` at level info.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditLog;

impl AuditSink for AuditLog {
    fn record(&self, entry: &AuditEntry) {
        say(|| tracing::info!(target: "arcp::audit", "{}", entry.to_json()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use parking_lot::Mutex;

    use super::*;

    /// Writes when it is let, and as it is told.
    struct Gate {
        steps: Receiver<std::io::Result<()>>,
        reached: Sender<()>,
        written: Arc<Mutex<String>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.reached.send(()).ok();
            // Nobody holds it any more.
            self.steps.recv().unwrap_or(Ok(()))?;
            self.written.lock().push_str(str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    struct Held {
        sink: AuditFile,
        step: Sender<std::io::Result<()>>,
        reached: Receiver<()>,
        written: Arc<Mutex<String>>,
    }

    fn held(waiting: usize) -> Held {
        let ((step, steps), (reach, reached), written) = (channel(), channel(), Arc::default());
        let gate = Gate { steps, reached: reach, written: Arc::clone(&written) };
        Held { sink: AuditFile::over(gate, waiting).unwrap(), step, reached, written }
    }

    fn entry(number: i64) -> AuditEntry {
        AuditEntry::authenticated(Timestamp(number), &format!("p{number}"))
    }

    fn principals(text: &str) -> Vec<String> {
        let value = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let show = |value: serde_json::Value| match value["details"]["entries"].as_str() {
            Some(lost) => format!("lost {lost}"),
            None => value["principal"].as_str().unwrap_or("?").to_owned(),
        };
        text.lines().filter(|line| !line.is_empty()).map(value).map(show).collect()
    }

    #[test]
    fn entries_reach_an_owner_only_file_in_order_and_follow_what_is_there() {
        let path = std::env::temp_dir().join(format!("arcp-audit-{}.jsonl", std::process::id()));
        drop(std::fs::remove_file(&path));
        for round in 0..2 {
            let sink = AuditFile::open(&path).unwrap();
            for number in 0..1000 {
                sink.record(&entry(round * 1000 + number));
            }
        }
        let text = std::fs::read_to_string(&path).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(principals(&text), (0..2000).map(|number| format!("p{number}")).collect::<Vec<_>>());
    }

    #[test]
    fn what_finds_no_place_is_counted_and_the_count_is_written() {
        let held = held(2);
        held.sink.record(&entry(1));
        held.reached.recv().unwrap();
        // The writer holds the first; two more wait, three are lost, and nobody was made to wait.
        for number in 2..=6 {
            held.sink.record(&entry(number));
        }
        drop(held.step);
        drop(held.sink);
        assert_eq!(principals(&held.written.lock()), ["p1", "p2", "p3", "lost 3"]);
    }

    #[test]
    fn after_a_full_disk_the_log_says_what_is_missing() {
        let held = held(8);
        for number in 1..=2 {
            held.sink.record(&entry(number));
            held.reached.recv().unwrap();
            held.step.send(Err(std::io::Error::from(std::io::ErrorKind::StorageFull))).unwrap();
        }
        drop(held.step);
        held.sink.record(&entry(3));
        drop(held.sink);
        let written = held.written.lock();
        // Whatever of a line was left behind ends before the next.
        assert!(written.starts_with('\n'), "{written}");
        assert_eq!(principals(&written), ["p3", "lost 2"]);
    }
}
