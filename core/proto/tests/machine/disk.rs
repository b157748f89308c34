//! What a durable store holds, as a model: the operations it has answered, and what the next process finds.

use std::collections::BTreeMap;
use std::sync::Arc;

use arcp_proto::feature::Feature;
use arcp_proto::json::RawJson;
use arcp_proto::machine::frame::Record;
use arcp_proto::machine::kept::{
    Kept, KeptCredential, KeptFollow, KeptJob, KeptKey, KeptSession, RestoredJob, RestoredSession, StoreOp,
};
use arcp_proto::message::JobStatus;

#[derive(Default)]
pub(crate) struct Disk {
    sessions: BTreeMap<Arc<str>, SessionFile>,
    jobs: BTreeMap<Arc<str>, JobFile>,
    keys: BTreeMap<(Arc<str>, String), KeptKey>,
    credentials: BTreeMap<String, KeptCredential>,
    epoch: u64,
}

struct SessionFile {
    session: KeptSession,
    freed: u64,
    numbers: BTreeMap<u64, Arc<Record>>,
    follows: BTreeMap<Arc<str>, KeptFollow>,
}

struct JobFile {
    job: KeptJob,
    status: JobStatus,
    budget: Option<RawJson>,
    records: Vec<Arc<Record>>,
}

impl Disk {
    pub(crate) fn write(&mut self, op: StoreOp) {
        match op {
            StoreOp::SaveSession(session) => match self.sessions.get_mut(&session.id) {
                Some(file) => file.session = *session,
                None => {
                    let file = SessionFile {
                        session: (*session).clone(),
                        freed: 0,
                        numbers: BTreeMap::new(),
                        follows: BTreeMap::new(),
                    };
                    self.sessions.insert(Arc::clone(&session.id), file);
                }
            },
            StoreOp::Free { session, through } => {
                if let Some(file) = self.sessions.get_mut(&session) {
                    file.freed = file.freed.max(through);
                    file.numbers.retain(|seq, _| *seq > through);
                }
            }
            StoreOp::ForgetSession(id) => drop(self.sessions.remove(&id)),
            StoreOp::SaveJob(job) => {
                let file =
                    JobFile { status: JobStatus::Pending, budget: None, records: Vec::new(), job: (*job).clone() };
                self.jobs.insert(Arc::clone(&job.job_id), file);
            }
            StoreOp::UpdateJob { job_id, status, budget } => {
                if let Some(file) = self.jobs.get_mut(&job_id) {
                    file.status = status;
                    file.budget = budget;
                }
            }
            StoreOp::Follow(follow) => {
                if let Some(file) = self.sessions.get_mut(&follow.session) {
                    file.follows.insert(Arc::clone(&follow.job_id), *follow);
                }
            }
            StoreOp::Unfollow { session, job_id } => {
                if let Some(file) = self.sessions.get_mut(&session) {
                    file.follows.remove(&job_id);
                }
            }
            StoreOp::History { session, job_id, first_event_seq, records } => {
                if let Some(file) = self.sessions.get_mut(&session) {
                    file.numbers.extend((first_event_seq..).zip(records));
                    if let Some(follow) = file.follows.get_mut(&job_id) {
                        follow.owed_after = None;
                    }
                }
            }
            StoreOp::Append(record) => {
                if let Some(file) = self.jobs.get_mut(&record.job_id) {
                    file.records.push(record);
                }
            }
            StoreOp::Number { session, event_seq, record } => {
                if let Some(file) = self.sessions.get_mut(&session) {
                    file.numbers.insert(event_seq, record);
                }
            }
            StoreOp::ForgetJob(id) => drop(self.jobs.remove(&id)),
            StoreOp::SaveKey(key) => drop(self.keys.insert((Arc::clone(&key.principal), key.key.clone()), *key)),
            StoreOp::ForgetKey { principal, key } => drop(self.keys.remove(&(principal, key))),
            StoreOp::SaveCredential(kept) => drop(self.credentials.insert(kept.id.clone(), *kept)),
            StoreOp::ForgetCredential(id) => drop(self.credentials.remove(&id)),
        }
    }

    pub(crate) fn credentials(&self) -> Vec<(String, String)> {
        self.credentials.values().map(|kept| (kept.id.clone(), kept.handle.get().to_owned())).collect()
    }

    pub(crate) fn shown(&self) -> String {
        format!("{:?}{:?}{:?}", self.records(), self.keys, self.credentials)
    }

    pub(crate) fn records(&self) -> BTreeMap<Arc<str>, Vec<Arc<Record>>> {
        self.jobs.iter().map(|(job_id, file)| (Arc::clone(job_id), file.records.clone())).collect()
    }

    /// What the next process finds.
    pub(crate) fn open(&mut self) -> Kept {
        self.epoch += 1;
        let mut jobs: Vec<&JobFile> = self.jobs.values().collect();
        jobs.sort_by_key(|file| (file.job.created_at, Arc::clone(&file.job.job_id)));
        Kept {
            epoch: self.epoch,
            sessions: self.sessions.values().map(|file| self.session(file)).collect(),
            jobs: jobs.into_iter().map(restored).collect(),
            keys: self.keys.values().cloned().collect(),
            credentials: self.credentials.values().cloned().collect(),
        }
    }

    fn session(&self, file: &SessionFile) -> RestoredSession {
        let gone = |record: &Record| !self.jobs.contains_key(&record.job_id);
        let last_gone = file.numbers.iter().filter(|(_, record)| gone(record)).map(|(seq, _)| *seq).max().unwrap_or(0);
        let freed = file.freed.max(last_gone);
        let log = file.numbers.range(freed + 1..).map(|(_, record)| Arc::clone(record)).collect();
        RestoredSession { session: file.session.clone(), freed, log, follows: file.follows.values().cloned().collect() }
    }
}

fn restored(file: &JobFile) -> RestoredJob {
    let last = file.records.last();
    RestoredJob {
        job: file.job.clone(),
        status: file.status,
        budget: file.budget.clone(),
        job_seq: last.map_or(0, |record| record.job_seq),
        source_seq: last.map_or(0, |record| record.source_seq),
        chunked: file.records.iter().any(|record| record.feature == Some(Feature::ResultChunk)),
        terminal: last.filter(|record| record.kind.is_terminal()).cloned(),
    }
}
