//! The durable store without a runtime around it.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use arcp::{SqliteOptions, SqliteStore, Store};
use arcp_proto::machine::frame::{Record, RecordKind, WireProfile};
use arcp_proto::machine::kept::{KeptSession, StoreOp};
use arcp_proto::time::Timestamp;
use arcp_store::StoreSink;
use bytes::Bytes;

use crate::{Measured, rate};

const EVENTS: u64 = 1_000_000;

/// What may wait for the store, as a runtime bounds it.
const MOST_WAITING: u64 = 65_536;

#[derive(Default)]
struct Progress {
    stored: Mutex<u64>,
    changed: Condvar,
}

impl Progress {
    fn wait_for(&self, ticket: u64) {
        drop(self.changed.wait_while(self.stored.lock().unwrap(), |stored| *stored < ticket).unwrap());
    }
}

impl StoreSink for Progress {
    fn stored(&self, ticket: u64, outcome: Result<(), String>) {
        outcome.unwrap();
        *self.stored.lock().unwrap() = ticket;
        self.changed.notify_all();
    }

    fn history(&self, _request: u64, _records: Vec<Arc<Record>>) {}

    fn taken_over(&self) {}
}

/// Events of one job kept per second, each with its number in one session.
pub(crate) fn appends() -> Measured {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::new(folder.path().join("bench.db"), SqliteOptions::default());
    let progress = Arc::new(Progress::default());
    store.open(Arc::clone(&progress) as Arc<dyn StoreSink>).map_err(|error| error.to_string())?;
    let session: Arc<str> = "sess_1".into();
    let (job_id, trace_id): (Arc<str>, Arc<str>) = ("job_1".into(), "4bf92f3577b34da6a3ce929d0e0e4736".into());
    let payload = Bytes::from(format!("{{\"kind\":\"log\",\"text\":\"{}\"}}", "x".repeat(100)));
    store.apply(1, StoreOp::SaveSession(Box::new(kept_session(&session))));
    let start = Instant::now();
    let mut ticket = 1;
    for event_seq in 1..=EVENTS {
        let record = Arc::new(Record {
            job_id: Arc::clone(&job_id),
            trace_id: Arc::clone(&trace_id),
            kind: RecordKind::Event,
            job_seq: event_seq,
            source_seq: event_seq,
            at: Timestamp(1_700_000_000_000),
            feature: None,
            payload: payload.clone(),
        });
        let append = StoreOp::Append(Arc::clone(&record));
        let number = StoreOp::Number { session: Arc::clone(&session), event_seq, record };
        store.apply_all(&mut [(ticket + 1, append), (ticket + 2, number)].into_iter());
        ticket += 2;
        // The peer acknowledges, as it would.
        if event_seq % 1000 == 0 {
            ticket += 1;
            let through = event_seq.saturating_sub(20_000);
            store.apply(ticket, StoreOp::Free { session: Arc::clone(&session), through });
            progress.wait_for(ticket.saturating_sub(MOST_WAITING));
        }
    }
    progress.wait_for(ticket);
    let took = start.elapsed();
    store.close();
    Ok(vec![rate(EVENTS, took)])
}

fn kept_session(id: &Arc<str>) -> KeptSession {
    KeptSession {
        id: Arc::clone(id),
        principal: "me".into(),
        seed: [0; 10],
        profile: WireProfile::Draft,
        features: Vec::new(),
        token: [0; 32],
        resumed_by: None,
        detached_at: None,
    }
}
