//! Whatever the order of operations, a reopened store gives back what a model of it says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails where it fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arcp_proto::feature::Feature;
use arcp_proto::machine::frame::{Record, RecordKind};
use arcp_proto::machine::kept::{
    Kept, KeptCredential, KeptFollow, KeptJob, KeptKey, KeptSession, RestoredJob, RestoredSession, StoreOp,
};
use arcp_proto::message::JobStatus;
use arcp_proto::time::Timestamp;
use arcp_store::SqliteOptions;
use arcp_store::sqlite::Inspector;
use common::{Open, follow, job, json, sealed, session};
use proptest::prelude::*;

/// One step; the numbers choose among few names, so that operations meet.
#[derive(Clone, Debug)]
enum Step {
    SaveSession(u8, u8),
    ForgetSession(u8),
    Free(u8, u8),
    SaveJob(u8, u8),
    UpdateJob(u8, bool),
    ForgetJob(u8),
    Follow(u8, u8, bool),
    /// The history of the job is numbered in the session.
    History(u8, u8),
    /// Appends to the job, numbered in the sessions whose bit is set.
    Emit(u8, u8, u8),
    Key(u8, bool),
    Credential(u8, bool),
    /// Waits until all is stored: the next operations are another batch.
    Settle,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..3_u8;
    prop_oneof![
        3 => (name.clone(), any::<u8>()).prop_map(|(id, salt)| Step::SaveSession(id, salt)),
        1 => name.clone().prop_map(Step::ForgetSession),
        3 => (name.clone(), 0..6_u8).prop_map(|(id, back)| Step::Free(id, back)),
        3 => (name.clone(), name.clone()).prop_map(|(id, session)| Step::SaveJob(id, session)),
        2 => (name.clone(), any::<bool>()).prop_map(|(id, running)| Step::UpdateJob(id, running)),
        1 => name.clone().prop_map(Step::ForgetJob),
        2 => (name.clone(), name.clone(), any::<bool>()).prop_map(|(id, job, on)| Step::Follow(id, job, on)),
        2 => (name.clone(), name.clone()).prop_map(|(id, job)| Step::History(id, job)),
        24 => (name.clone(), 0..8_u8, 0..40_u8).prop_map(|(job, into, kind)| Step::Emit(job, into, kind)),
        1 => (name.clone(), any::<bool>()).prop_map(|(id, save)| Step::Key(id, save)),
        1 => (name, any::<bool>()).prop_map(|(id, save)| Step::Credential(id, save)),
        4 => Just(Step::Settle),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Debug)]
struct ModelSession {
    saved: KeptSession,
    freed: u64,
    /// By number, the record and which life of its job it belongs to.
    numbers: BTreeMap<u64, (u64, Arc<Record>)>,
    last: u64,
    /// By life and id of the job.
    follows: BTreeMap<(u64, Arc<str>), KeptFollow>,
}

#[derive(Debug)]
struct ModelJob {
    life: u64,
    saved: KeptJob,
    status: JobStatus,
    budget: bool,
    records: Vec<Arc<Record>>,
}

#[derive(Debug, Default)]
struct Model {
    lives: u64,
    sessions: HashMap<String, ModelSession>,
    jobs: HashMap<String, ModelJob>,
    keys: BTreeMap<String, KeptKey>,
    credentials: BTreeMap<String, KeptCredential>,
}

const BUDGET: &str = "{\"USD\":\"1.00\"}";

impl Model {
    /// The operations of a step, which the model carries out itself.
    fn take(&mut self, step: &Step) -> Vec<StoreOp> {
        match *step {
            Step::SaveSession(id, salt) => {
                let mut saved = session(&format!("sess_{id}"));
                saved.token = [salt; 32];
                saved.detached_at = (salt % 2 == 0).then_some(Timestamp(salt.into()));
                let known = self.sessions.entry(saved.id.to_string()).or_insert_with(|| ModelSession {
                    saved: saved.clone(),
                    freed: 0,
                    numbers: BTreeMap::new(),
                    last: 0,
                    follows: BTreeMap::new(),
                });
                known.saved = saved.clone();
                vec![StoreOp::SaveSession(Box::new(saved))]
            }
            Step::ForgetSession(id) => {
                let id = format!("sess_{id}");
                self.sessions.remove(&id);
                vec![StoreOp::ForgetSession(id.into())]
            }
            Step::Free(id, back) => {
                let id = format!("sess_{id}");
                let Some(session) = self.sessions.get_mut(&id) else { return Vec::new() };
                let through = session.last.saturating_sub(back.into());
                session.freed = session.freed.max(through);
                vec![StoreOp::Free { session: id.into(), through }]
            }
            Step::SaveJob(id, session) => {
                let id = format!("job_{id}");
                if self.jobs.contains_key(&id) {
                    return Vec::new();
                }
                self.lives += 1;
                let mut saved = job(&id, &format!("sess_{session}"));
                saved.created_at = Timestamp(self.lives.cast_signed());
                self.jobs.insert(
                    id,
                    ModelJob {
                        life: self.lives,
                        saved: saved.clone(),
                        status: JobStatus::Pending,
                        budget: false,
                        records: Vec::new(),
                    },
                );
                vec![StoreOp::SaveJob(Box::new(saved))]
            }
            Step::UpdateJob(id, running) => {
                let id = format!("job_{id}");
                let Some(job) = self.jobs.get_mut(&id) else { return Vec::new() };
                if job.records.last().is_some_and(|last| last.kind.is_terminal()) {
                    return Vec::new();
                }
                let status = if running { JobStatus::Running } else { JobStatus::Pending };
                (job.status, job.budget) = (status, running);
                vec![StoreOp::UpdateJob { job_id: id.into(), status, budget: running.then(|| json(BUDGET)) }]
            }
            Step::ForgetJob(id) => {
                let id = format!("job_{id}");
                self.jobs.remove(&id);
                vec![StoreOp::ForgetJob(id.into())]
            }
            Step::Follow(id, of, follows) => {
                let (session, job_id) = (format!("sess_{id}"), format!("job_{of}"));
                let (Some(known), Some(job)) = (self.sessions.get_mut(&session), self.jobs.get(&job_id)) else {
                    return Vec::new();
                };
                let entry = (job.life, job_id.clone().into());
                if !follows {
                    known.follows.remove(&entry);
                    return vec![StoreOp::Unfollow { session: session.into(), job_id: job_id.into() }];
                }
                let follow = follow(&session, &job_id);
                known.follows.insert(entry, follow.clone());
                vec![StoreOp::Follow(Box::new(follow))]
            }
            Step::History(id, of) => {
                let (session, job_id) = (format!("sess_{id}"), format!("job_{of}"));
                let (Some(known), Some(job)) = (self.sessions.get_mut(&session), self.jobs.get(&job_id)) else {
                    return Vec::new();
                };
                if let Some(follow) = known.follows.get_mut(&(job.life, job_id.clone().into())) {
                    follow.owed_after = None;
                }
                let first_event_seq = known.last + 1;
                known.last += job.records.len() as u64;
                let copies = job.records.iter().map(|record| (job.life, Arc::clone(record)));
                known.numbers.extend((first_event_seq..).zip(copies));
                let records = job.records.clone();
                vec![StoreOp::History { session: session.into(), job_id: job_id.into(), first_event_seq, records }]
            }
            Step::Emit(id, into, kind) => self.emit(id, into, kind),
            Step::Key(id, save) => {
                let name = format!("key_{id}");
                if !save {
                    self.keys.remove(&name);
                    return vec![StoreOp::ForgetKey { principal: "me".into(), key: name }];
                }
                let key = KeptKey {
                    principal: "me".into(),
                    key: name.clone(),
                    fingerprint: [self.lives as u8; 32],
                    job_id: "job_1".into(),
                    trace_id: "t".into(),
                    accepted: json("{}"),
                    expires_at: Timestamp(self.lives.cast_signed()),
                    terminal: None,
                };
                self.keys.insert(name, key.clone());
                vec![StoreOp::SaveKey(Box::new(key))]
            }
            Step::Credential(id, save) => {
                let id = format!("cred_{id}");
                if !save {
                    self.credentials.remove(&id);
                    return vec![StoreOp::ForgetCredential(id)];
                }
                let at = Timestamp(self.lives.cast_signed());
                let credential =
                    KeptCredential { id: id.clone(), job_id: "job_1".into(), handle: json("{}"), issued_at: at };
                self.credentials.insert(id, credential.clone());
                vec![StoreOp::SaveCredential(Box::new(credential))]
            }
            Step::Settle | Step::Reopen => Vec::new(),
        }
    }

    fn emit(&mut self, id: u8, into: u8, kind: u8) -> Vec<StoreOp> {
        let id = format!("job_{id}");
        let Some(job) = self.jobs.get_mut(&id) else { return Vec::new() };
        if job.records.last().is_some_and(|last| last.kind.is_terminal()) {
            return Vec::new();
        }
        let job_seq = job.records.len() as u64 + 1;
        let record = Arc::new(Record {
            job_id: id.into(),
            trace_id: if kind.is_multiple_of(5) { "other".into() } else { Arc::clone(&job.saved.trace_id) },
            kind: match kind {
                0 => RecordKind::Result,
                1 => RecordKind::Error(JobStatus::Cancelled),
                _ => RecordKind::Event,
            },
            job_seq,
            source_seq: job_seq * 3 + u64::from(kind % 3),
            at: Timestamp(i64::from(kind) - 20),
            feature: (kind == 2).then_some(Feature::ResultChunk),
            payload: format!("{{\"kind\":{kind},\"life\":{}}}", job.life).into(),
        });
        job.records.push(Arc::clone(&record));
        let mut ops = vec![StoreOp::Append(Arc::clone(&record))];
        for (bit, name) in ["sess_0", "sess_1", "sess_2"].into_iter().enumerate() {
            if into & (1 << bit) == 0 {
                continue;
            }
            let Some(session) = self.sessions.get_mut(name) else { continue };
            session.last += 1;
            session.numbers.insert(session.last, (job.life, Arc::clone(&record)));
            ops.push(StoreOp::Number { session: name.into(), event_seq: session.last, record: Arc::clone(&record) });
        }
        ops
    }

    fn expected(&self, epoch: u64) -> Kept {
        let lives: BTreeSet<u64> = self.jobs.values().map(|job| job.life).collect();
        let sessions = self.sessions.values().map(|session| {
            let gone = session.numbers.iter().filter(|(_, (life, _))| !lives.contains(life)).map(|(number, _)| *number);
            let freed = session.freed.max(gone.max().unwrap_or(0));
            RestoredSession {
                session: session.saved.clone(),
                freed,
                log: session.numbers.range(freed + 1..).map(|(_, (_, record))| Arc::clone(record)).collect(),
                follows: session
                    .follows
                    .iter()
                    .filter(|((life, _), _)| lives.contains(life))
                    .map(|(_, follow)| follow.clone())
                    .collect(),
            }
        });
        let jobs = self.jobs.values().map(|job| {
            let last = job.records.last();
            let terminal = last.filter(|last| last.kind.is_terminal()).cloned();
            RestoredJob {
                job: job.saved.clone(),
                status: match terminal.as_ref().map(|terminal| terminal.kind) {
                    Some(RecordKind::Result) => JobStatus::Success,
                    Some(RecordKind::Error(status)) => status,
                    _ => job.status,
                },
                budget: job.budget.then(|| json(BUDGET)),
                job_seq: last.map_or(0, |last| last.job_seq),
                source_seq: last.map_or(0, |last| last.source_seq),
                chunked: job.records.iter().any(|record| record.feature == Some(Feature::ResultChunk)),
                terminal,
            }
        });
        Kept {
            epoch,
            sessions: sessions.collect(),
            jobs: jobs.collect(),
            keys: self.keys.values().cloned().collect(),
            credentials: self.credentials.values().cloned().collect(),
        }
    }
}

/// In one order, as text.
fn shown(mut kept: Kept) -> String {
    kept.sessions.sort_by(|one, other| one.session.id.cmp(&other.session.id));
    kept.jobs.sort_by_key(|job| job.job.created_at);
    kept.keys.sort_by(|one, other| one.key.cmp(&other.key));
    kept.credentials.sort_by(|one, other| one.id.cmp(&other.id));
    for session in &mut kept.sessions {
        session.follows.sort();
    }
    format!("{kept:#?}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Rules
    #[test]
    fn a_reopened_store_agrees_with_its_model(
        steps in proptest::collection::vec(step(), 1..160),
        options in prop_oneof![Just(SqliteOptions::default()), Just(sealed(7))],
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arcp.db");
        let mut open = Open::with(&path, options.clone());
        let mut model = Model::default();
        let mut epoch = 1;
        for (at, step) in steps.iter().chain([&Step::Reopen, &Step::Reopen]).enumerate() {
            for op in model.take(step) {
                open.apply(op);
            }
            match step {
                Step::Settle => {
                    open.settle();
                    for (id, job) in &model.jobs {
                        let request = at as u64 * 10 + u64::from(id.as_bytes()[4] - b'0');
                        let after = job.records.first().map_or(0, |first| first.source_seq);
                        open.history(request, id, after);
                        let expected: Vec<_> =
                            job.records.iter().filter(|record| after == 0 || record.source_seq > after).collect();
                        prop_assert_eq!(format!("{:?}", open.sink.history(request)), format!("{expected:?}"));
                    }
                }
                Step::Reopen => {
                    drop(open);
                    epoch += 1;
                    open = Open::with(&path, options.clone());
                    let kept = std::mem::take(&mut open.kept);
                    prop_assert!(kept.jobs.is_sorted_by_key(|job| job.job.created_at));
                    prop_assert_eq!(shown(kept), shown(model.expected(epoch)));
                }
                _ => {}
            }
        }
        let problems = Inspector::open_with(&path, &options).unwrap().check().unwrap().problems;
        prop_assert!(problems.is_empty(), "{:?}", problems);
    }
}
