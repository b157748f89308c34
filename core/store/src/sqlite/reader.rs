//! The reader's thread: answers questions about a job's records, beside the commits that go on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use arcp_proto::machine::frame::Record;
use rusqlite::{Connection, params};

use super::batch::HistoryRequest;
use super::payload::{Payloads, Place};
use super::restore::{Problem, unsigned};
use super::segment::{Choice, decode};
use crate::StoreSink;

/// What the reader's thread owns.
pub(super) struct Reader {
    pub(super) path: PathBuf,
    pub(super) conn: Connection,
    pub(super) payloads: Payloads,
    pub(super) questions: Receiver<HistoryRequest>,
    pub(super) sink: Arc<dyn StoreSink>,
}

impl Reader {
    /// Runs until the writer has ended.
    pub(super) fn run(self) {
        for question in &self.questions {
            let records = read(&self.conn, &self.payloads, &question).unwrap_or_else(|problem| {
                // A part of a history would pass for all of it.
                tracing::error!(job_id = %question.job_id, "its history is not told: {}", problem.at(&self.path));
                Vec::new()
            });
            self.sink.history(question.request, records);
        }
    }
}

fn read(conn: &Connection, payloads: &Payloads, question: &HistoryRequest) -> Result<Vec<Arc<Record>>, Problem> {
    let Some(key) = question.key else { return Ok(Vec::new()) };
    let (after, through) = (question.after_source_seq, question.through_job_seq);
    let sql = "SELECT data, first, last FROM segment WHERE job = ?1 AND first <= ?2 AND (?3 = 0 OR highest_source > ?3) \
               ORDER BY first";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![key, through.cast_signed(), after.cast_signed()])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let wanted = |job_seq: u64, source_seq: u64| job_seq <= through && (after == 0 || source_seq > after);
        let place = Place::Records { job_id: &question.job_id, first: unsigned(row, 1)?, last: unsigned(row, 2)? };
        let blob = payloads.open_bytes(place, row.get(0)?);
        let told = blob.and_then(|blob| decode(blob, &question.job_id, Choice { wanted, share: true }));
        records.extend(told.map_err(|damage| place.damage(damage))?);
    }
    Ok(records)
}
