//! What one transaction will write: operations gathered by what they touch.
//!
//! Staging needs no database, so a batch whose commit failed simply takes in what came since and is tried again as one.

use std::collections::HashMap;
use std::sync::Arc;

use arcp_proto::feature::Feature;
use arcp_proto::json::RawJson;
use arcp_proto::machine::frame::{Record, RecordKind};
use arcp_proto::machine::kept::{KeptCredential, KeptFollow, KeptJob, KeptKey, KeptSession, StoreOp};
use arcp_proto::message::JobStatus;

use super::runs::Runs;
use super::segment::Segment;
use crate::PerJobCap;

/// A segment holds no more than this, so that reading its last record or dropping it stays cheap.
const SEGMENT_BYTES: usize = 256 << 10;
const SEGMENT_RECORDS: u64 = 4096;
/// Numbers in one row.
const ROW_NUMBERS: u64 = 4096;

/// The changing part of a job.
#[derive(Clone, Debug)]
pub(super) struct JobState {
    pub(super) status: JobStatus,
    pub(super) budget: Option<RawJson>,
    pub(super) job_seq: u64,
    pub(super) source_seq: u64,
    pub(super) chunked: bool,
    pub(super) ended: bool,
    pub(super) records: u64,
    pub(super) cost: u64,
}

impl Default for JobState {
    fn default() -> Self {
        JobState {
            status: JobStatus::Pending,
            budget: None,
            job_seq: 0,
            source_seq: 0,
            chunked: false,
            ended: false,
            records: 0,
            cost: 0,
        }
    }
}

/// The keys of everything that is in the database or about to be.
#[derive(Debug)]
pub(super) struct Index {
    next_key: i64,
    pub(super) sessions: HashMap<Arc<str>, i64>,
    pub(super) jobs: HashMap<Arc<str>, i64>,
    /// By job key, as of the last commit but for what operations say outright.
    pub(super) states: HashMap<i64, JobState>,
    /// The session and the job asked for last: most operations come in rows.
    last_session: Option<(Arc<str>, i64)>,
    last_job: Option<(Arc<str>, i64)>,
}

/// Keys of one owner; above them stands the epoch, so that no key is ever used twice.
const KEY_BITS: u32 = 40;

impl Index {
    /// `None` when the epoch is used up, after eight million openings.
    pub(super) fn new(epoch: u64) -> Option<Index> {
        let epoch = i64::try_from(epoch).ok().filter(|epoch| *epoch < 1 << (63 - KEY_BITS))?;
        Some(Index {
            next_key: epoch << KEY_BITS,
            sessions: HashMap::new(),
            jobs: HashMap::new(),
            states: HashMap::new(),
            last_session: None,
            last_job: None,
        })
    }

    fn fresh_key(&mut self) -> i64 {
        self.next_key += 1;
        self.next_key
    }

    fn session(&mut self, id: &Arc<str>) -> Option<i64> {
        find(&self.sessions, &mut self.last_session, id)
    }

    fn job(&mut self, id: &Arc<str>) -> Option<i64> {
        find(&self.jobs, &mut self.last_job, id)
    }
}

fn find(all: &HashMap<Arc<str>, i64>, last: &mut Option<(Arc<str>, i64)>, id: &Arc<str>) -> Option<i64> {
    match last {
        Some((known, key)) if Arc::ptr_eq(known, id) => Some(*key),
        _ => {
            let key = *all.get(id)?;
            *last = Some((Arc::clone(id), key));
            Some(key)
        }
    }
}

/// What is staged for one session.
#[derive(Debug, Default)]
pub(super) struct StagedSession {
    pub(super) saved: Option<Box<KeptSession>>,
    pub(super) freed: Option<u64>,
    pub(super) numbers: Vec<Runs>,
}

/// What is staged for one job.
#[derive(Debug, Default)]
pub(super) struct StagedJob {
    /// Its id, when the database does not know it yet.
    pub(super) fresh: Option<Arc<str>>,
    pub(super) saved: Option<Box<KeptJob>>,
    pub(super) segments: Vec<Segment>,
    pub(super) chunked: bool,
    pub(super) ended: Option<JobStatus>,
}

/// Someone waits for a job's records up to this one.
#[derive(Debug)]
pub(super) struct HistoryRequest {
    pub(super) request: u64,
    pub(super) job_id: Arc<str>,
    pub(super) key: Option<i64>,
    pub(super) after_source_seq: u64,
    pub(super) through_job_seq: u64,
}

/// Everything staged.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Of the last operation; 0 while there is none.
    pub(super) ticket: u64,
    pub(super) operations: u64,
    pub(super) forgotten_sessions: Vec<i64>,
    pub(super) forgotten_jobs: Vec<i64>,
    pub(super) sessions: HashMap<i64, StagedSession>,
    pub(super) jobs: HashMap<i64, StagedJob>,
    /// `None` ends one.
    pub(super) subscriptions: HashMap<(i64, i64), Option<Box<KeptFollow>>>,
    /// Subscriptions of earlier batches whose history has come.
    pub(super) settled_histories: Vec<(i64, i64)>,
    pub(super) keys: HashMap<(Arc<str>, String), Option<Box<KeptKey>>>,
    pub(super) credentials: HashMap<String, Option<Box<KeptCredential>>>,
    /// To be answered once the rest is committed.
    pub(super) history: Vec<HistoryRequest>,
}

impl Batch {
    /// Takes in the next operation.
    pub(super) fn stage(&mut self, index: &mut Index, cap: PerJobCap, ticket: u64, op: StoreOp) {
        self.ticket = ticket;
        self.operations += 1;
        match op {
            StoreOp::Append(record) => self.append(index, cap, &record),
            StoreOp::Number { session, event_seq, record } => self.number(index, &session, event_seq, &record),
            StoreOp::History { session, job_id, first_event_seq, records } => {
                for (event_seq, record) in (first_event_seq..).zip(&records) {
                    self.number(index, &session, event_seq, record);
                }
                let (Some(session), Some(job)) = (index.session(&session), index.job(&job_id)) else { return };
                match self.subscriptions.get_mut(&(session, job)) {
                    Some(Some(follow)) => follow.owed_after = None,
                    Some(None) => {}
                    None => self.settled_histories.push((session, job)),
                }
            }
            StoreOp::Free { session, through } => {
                let Some(session) = index.session(&session) else { return };
                let staged = self.sessions.entry(session).or_default();
                staged.freed = staged.freed.max(Some(through));
            }
            StoreOp::SaveSession(session) => {
                let key = match index.session(&session.id) {
                    Some(key) => key,
                    None => {
                        let key = index.fresh_key();
                        index.sessions.insert(Arc::clone(&session.id), key);
                        key
                    }
                };
                self.sessions.entry(key).or_default().saved = Some(session);
            }
            StoreOp::ForgetSession(id) => {
                index.last_session = None;
                let Some(key) = index.sessions.remove(&id) else { return };
                self.sessions.remove(&key);
                self.subscriptions.retain(|(session, _), _| *session != key);
                self.forgotten_sessions.push(key);
            }
            StoreOp::SaveJob(job) => {
                let key = self.job_key(index, &job.job_id);
                self.jobs.entry(key).or_default().saved = Some(job);
            }
            StoreOp::UpdateJob { job_id, status, budget } => {
                let Some(key) = index.job(&job_id) else { return };
                let staged = self.jobs.entry(key).or_default();
                let state = index.states.entry(key).or_default();
                if !state.ended && staged.ended.is_none() {
                    state.status = status;
                }
                state.budget = budget;
            }
            StoreOp::Follow(follow) => {
                let (session, job) = (index.session(&follow.session), index.job(&follow.job_id));
                let (Some(session), Some(job)) = (session, job) else { return };
                self.subscriptions.insert((session, job), Some(follow));
            }
            StoreOp::Unfollow { session, job_id } => {
                let (Some(session), Some(job)) = (index.session(&session), index.job(&job_id)) else { return };
                self.subscriptions.insert((session, job), None);
            }
            StoreOp::ForgetJob(id) => {
                index.last_job = None;
                let Some(key) = index.jobs.remove(&id) else { return };
                index.states.remove(&key);
                self.jobs.remove(&key);
                self.subscriptions.retain(|(_, job), _| *job != key);
                self.forgotten_jobs.push(key);
            }
            StoreOp::SaveKey(key) => {
                self.keys.insert((Arc::clone(&key.principal), key.key.clone()), Some(key));
            }
            StoreOp::ForgetKey { principal, key } => {
                self.keys.insert((principal, key), None);
            }
            StoreOp::SaveCredential(credential) => {
                self.credentials.insert(credential.id.clone(), Some(credential));
            }
            StoreOp::ForgetCredential(id) => {
                self.credentials.insert(id, None);
            }
        }
    }

    /// Takes in a question about everything taken in before.
    pub(super) fn ask(&mut self, index: &mut Index, request: u64, job_id: Arc<str>, after_source_seq: u64) {
        let key = index.job(&job_id);
        let staged = key.and_then(|key| self.jobs.get(&key)).and_then(|job| job.segments.last());
        let through_job_seq = match staged {
            Some(segment) => segment.last_job_seq,
            None => key.and_then(|key| index.states.get(&key)).map_or(0, |state| state.job_seq),
        };
        self.history.push(HistoryRequest { request, job_id, key, after_source_seq, through_job_seq });
    }

    fn number(&mut self, index: &mut Index, session: &Arc<str>, event_seq: u64, record: &Record) {
        // A number of a session that is forgotten goes nowhere.
        let Some(session) = index.session(session) else { return };
        // No job has key 0: such a number names a record that is gone.
        let job = index.job(&record.job_id).unwrap_or(0);
        let numbers = &mut self.sessions.entry(session).or_default().numbers;
        match numbers.last_mut() {
            Some(runs) if runs.count < ROW_NUMBERS => runs.push(event_seq, job, record.job_seq),
            _ => {
                let mut runs = Runs::default();
                runs.push(event_seq, job, record.job_seq);
                numbers.push(runs);
            }
        }
    }

    fn append(&mut self, index: &mut Index, cap: PerJobCap, record: &Record) {
        let key = self.job_key(index, &record.job_id);
        let job = self.jobs.entry(key).or_default();
        job.chunked |= record.feature == Some(Feature::ResultChunk);
        match record.kind {
            RecordKind::Event => {}
            RecordKind::Result => job.ended = Some(JobStatus::Success),
            RecordKind::Error(status) => job.ended = Some(status),
        }
        // Small caps need small segments, since a segment is dropped whole.
        let records = SEGMENT_RECORDS.min(cap.records as u64 / 16);
        let bytes = SEGMENT_BYTES.min(cap.bytes / 16);
        match job.segments.last_mut() {
            Some(segment) if segment.count < records && segment.len() < bytes => segment.push(record),
            _ => job.segments.push(Segment::new(record)),
        }
    }

    /// The key of a job. One that was never saved gets a key too: its records can be read until the store is closed.
    fn job_key(&mut self, index: &mut Index, id: &Arc<str>) -> i64 {
        if let Some(key) = index.job(id) {
            return key;
        }
        let key = index.fresh_key();
        index.jobs.insert(Arc::clone(id), key);
        self.jobs.entry(key).or_default().fresh = Some(Arc::clone(id));
        key
    }
}
