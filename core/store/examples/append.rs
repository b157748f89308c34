//! Appends to a SQLite store as fast as it takes them, and prints how many it kept per second.
//!
//! `cargo run --release -p arcp-store --example append -- [EVENTS] [JOBS] [PAYLOAD_BYTES] [sealed]`

use std::error::Error;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use arcp_proto::machine::frame::{Record, RecordKind, WireProfile};
use arcp_proto::machine::kept::{KeptSession, StoreOp};
use arcp_proto::time::Timestamp;
use arcp_store::{AesGcmSealer, Sealer, SqliteOptions, SqliteStore, Store, StoreSink};
use bytes::Bytes;

/// How many operations may wait, as the machine bounds them.
const MOST_WAITING: u64 = 65_536;

#[derive(Default)]
struct Progress {
    stored: Mutex<u64>,
    changed: Condvar,
}

impl Progress {
    fn wait_for(&self, ticket: u64) {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        while *stored < ticket {
            stored = self.changed.wait(stored).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl StoreSink for Progress {
    fn stored(&self, ticket: u64, _outcome: Result<(), String>) {
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = ticket;
        self.changed.notify_all();
    }

    fn history(&self, _request: u64, _records: Vec<Arc<Record>>) {}

    fn taken_over(&self) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let sealed = std::env::args().any(|text| text == "sealed");
    let mut numbers = std::env::args().skip(1).filter(|text| text != "sealed").map(|text| text.parse::<u64>());
    let mut next = |default| numbers.next().unwrap_or(Ok(default));
    let (events, jobs, bytes) = (next(2_000_000)?, next(1)?.max(1), next(100)?);

    let folder = tempfile::tempdir()?;
    let sealer = if sealed { Some(Arc::new(AesGcmSealer::new(&[7; 32])?) as Arc<dyn Sealer>) } else { None };
    let options = SqliteOptions { sealer, ..SqliteOptions::default() };
    let store = SqliteStore::new(folder.path().join("append.db"), options);
    let progress = Arc::new(Progress::default());
    store.open(Arc::clone(&progress) as Arc<dyn StoreSink>)?;

    let session: Arc<str> = "sess_1".into();
    let ids: Vec<Arc<str>> = (0..jobs).map(|job| format!("job_{job}").into()).collect();
    let trace_id: Arc<str> = "4bf92f3577b34da6a3ce929d0e0e4736".into();
    let payload = Bytes::from(format!("{{\"kind\":\"log\",\"text\":\"{}\"}}", "x".repeat(bytes as usize)));
    store.apply(
        1,
        StoreOp::SaveSession(Box::new(KeptSession {
            id: Arc::clone(&session),
            principal: "me".into(),
            seed: [0; 10],
            profile: WireProfile::Draft,
            features: Vec::new(),
            token: [0; 32],
            resumed_by: None,
            detached_at: None,
        })),
    );
    let started = Instant::now();
    let mut ticket = 1;
    for event in 0..events {
        let record = Arc::new(Record {
            job_id: Arc::clone(&ids[(event % jobs) as usize]),
            trace_id: Arc::clone(&trace_id),
            kind: RecordKind::Event,
            job_seq: event / jobs + 1,
            source_seq: event + 1,
            at: Timestamp(1_700_000_000_000 + event.cast_signed() / 1000),
            feature: None,
            payload: payload.clone(),
        });
        store.apply(ticket + 1, StoreOp::Append(Arc::clone(&record)));
        store.apply(ticket + 2, StoreOp::Number { session: Arc::clone(&session), event_seq: event + 1, record });
        ticket += 2;
        // The peer acknowledges, as it would.
        if event % 1000 == 999 {
            ticket += 1;
            store.apply(ticket, StoreOp::Free { session: Arc::clone(&session), through: event.saturating_sub(20_000) });
            progress.wait_for(ticket.saturating_sub(MOST_WAITING));
        }
    }
    progress.wait_for(ticket);
    let took = started.elapsed();
    let stats = store.stats();
    writeln!(
        std::io::stdout(),
        "{events} events of {} bytes in {jobs} jobs, each numbered once: {:.0} per second; {} commits, {:.2?} each",
        payload.len(),
        events as f64 / took.as_secs_f64(),
        stats.commits,
        stats.commit_time / u32::try_from(stats.commits.max(1)).unwrap_or(1),
    )?;
    store.close();
    Ok(())
}
