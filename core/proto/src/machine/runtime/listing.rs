//! `session.list_jobs`: pages over the jobs a principal may observe, in the order of their acceptance.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;
use serde_json::value::RawValue;

use super::storage::Gated;
use super::submission::text_budget;
use super::{ConnKey, JobKey, RuntimeMachine, SessionKey};
use crate::error::Error;
use crate::feature::Feature;
use crate::json::RawJson;
use crate::machine::frame::WireProfile;
use crate::machine::job::Job;
use crate::machine::policy::Decision;
use crate::message::{JobEntry, JobFilter, JobStatus, ListJobs, kind};
use crate::time::{Now, Timestamp};

/// Entries of a page.
const DEFAULT_LIMIT: u64 = 100;
const MAX_LIMIT: u64 = 1000;

/// A page that grows past this ends early, with a cursor.
const PAGE_BYTES: usize = 4 << 20;

/// Jobs looked at for one page. A page that finds too few among them ends early, with a cursor.
const MAX_LOOKED_AT: usize = 10_000;

/// A policy that is asked is asked about so many jobs at once, if there are as many.
const LEAST_ASKED: usize = 16;

/// Where a job stands in a listing.
pub(super) type Place = (Timestamp, Arc<str>);

/// The kept jobs in the order of a listing: per principal and, for policies that show the jobs of others, of all.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_principal: HashMap<Arc<str>, Shelf>,
    /// Not kept while nobody can see the jobs of others.
    everybody: Option<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    kept: BTreeMap<Place, JobKey>,
    /// Those that have not ended: what is asked for most.
    live: BTreeMap<Place, JobKey>,
}

impl Shelf {
    fn insert(&mut self, key: JobKey, job: &Job) {
        self.kept.insert(place(job), key);
        if !job.status.is_terminal() {
            self.live.insert(place(job), key);
        }
    }
}

impl Index {
    /// A job was accepted, or came back after a restart.
    pub(super) fn insert(&mut self, key: JobKey, job: &Job) {
        let own = self.by_principal.entry(Arc::clone(&job.start.principal)).or_default();
        own.insert(key, job);
        if let Some(everybody) = &mut self.everybody {
            everybody.insert(key, job);
        }
    }

    /// Keeps the order of all jobs from now on.
    pub(super) fn open_to_others(&mut self, jobs: &FxHashMap<JobKey, Job>) {
        let everybody = self.everybody.insert(Shelf::default());
        jobs.iter().for_each(|(key, job)| everybody.insert(*key, job));
    }

    /// A job has its terminal.
    pub(super) fn ended(&mut self, job: &Job) {
        let place = place(job);
        if let Some(everybody) = &mut self.everybody {
            everybody.live.remove(&place);
        }
        if let Some(shelf) = self.by_principal.get_mut(&job.start.principal) {
            shelf.live.remove(&place);
        }
    }

    /// A job is no longer kept.
    pub(super) fn forget(&mut self, job: &Job) {
        self.ended(job);
        let place = place(job);
        if let Some(everybody) = &mut self.everybody {
            everybody.kept.remove(&place);
        }
        if let Some(shelf) = self.by_principal.get_mut(&job.start.principal) {
            shelf.kept.remove(&place);
            if shelf.kept.is_empty() {
                self.by_principal.remove(&job.start.principal);
            }
        }
    }
}

fn place(job: &Job) -> Place {
    (job.created_at, Arc::clone(&job.start.job_id))
}

/// A filter as it is applied. Two filters that mean the same are equal.
#[derive(Debug, PartialEq, Eq)]
struct Filter {
    /// One bit for each state that is asked for.
    states: Option<u8>,
    agent: Option<(String, Option<String>)>,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
}

const STATES: [JobStatus; 6] = [
    JobStatus::Pending,
    JobStatus::Running,
    JobStatus::Success,
    JobStatus::Error,
    JobStatus::Cancelled,
    JobStatus::TimedOut,
];

impl Filter {
    fn new(asked: JobFilter) -> Self {
        // A name that is no state matches nothing, and so does a reference that no agent can have.
        let bit = |name: &String| STATES.iter().position(|state| state.as_str() == name).map_or(0, |place| 1 << place);
        Filter {
            states: asked.status.map(|names| names.iter().fold(0, |states, name| states | bit(name))),
            agent: asked.agent.map(|reference| match reference.split_once('@') {
                Some((name, version)) => (name.to_owned(), Some(version.to_owned())),
                None => (reference, None),
            }),
            after: asked.created_after,
            before: asked.created_before,
        }
    }

    fn asks_for(&self, status: JobStatus) -> bool {
        self.states.is_none_or(|states| {
            STATES.iter().position(|state| *state == status).is_some_and(|place| states & (1 << place) != 0)
        })
    }

    fn asks_for_live_only(&self) -> bool {
        STATES.iter().all(|status| !status.is_terminal() || !self.asks_for(*status))
    }

    /// All but the instants, which bound the walk already.
    fn matches(&self, job: &Job) -> bool {
        self.asks_for(job.status)
            && self.agent.as_ref().is_none_or(|(name, version)| {
                *name == job.start.agent
                    && version.as_ref().is_none_or(|version| Some(version) == job.start.version.as_ref())
            })
    }

    /// What ties a cursor to the filter it came from.
    fn seal(&self) -> Vec<u8> {
        let after = self.after.map(|at| at.0);
        serde_json::to_vec(&(self.states, &self.agent, after, self.before.map(|at| at.0))).unwrap_or_default()
    }

    /// Where the walk begins.
    fn start(&self, cursor: Option<Place>) -> Bound<Place> {
        let after = self.after.map(|at| (Timestamp(at.0.saturating_add(1)), Arc::<str>::from("")));
        match (cursor, after) {
            (Some(cursor), Some(after)) if cursor < after => Bound::Included(after),
            (Some(cursor), _) => Bound::Excluded(cursor),
            (None, Some(after)) => Bound::Included(after),
            (None, None) => Bound::Unbounded,
        }
    }
}

/// `session.jobs` with its entries written already.
#[derive(Serialize)]
struct Page<'a> {
    request_id: &'a str,
    jobs: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
    /// How many of them are other principals'.
    #[serde(skip)]
    others: usize,
}

impl RuntimeMachine {
    /// Under which cursors are made; to be given to the runtime that continues this one, so that they stay good.
    pub fn cursor_key(&self) -> [u8; 32] {
        self.cursor_key.bytes()
    }

    /// Answers once everything decided so far is stored, so that nothing is listed that a crash could undo (D-18).
    pub(super) fn list_jobs(&mut self, now: Now, conn: ConnKey, key: SessionKey, id: &str, asked: ListJobs) {
        let verdicts = HashMap::new();
        let listing = Listing { conn, session: key, request_id: id.to_owned(), asked, verdicts, until: self.next_key };
        self.gate(now, Gated::List(Box::new(listing)));
    }

    /// Sends the page, or why there is none.
    pub(super) fn answer_listing(&mut self, now: Now, listing: Listing) {
        let (conn, session) = (listing.conn, listing.session);
        if self.sessions.get(&session).is_none_or(|session| session.conn != Some(conn)) {
            return;
        }
        match self.page(&listing) {
            Ok(Found::Page(page)) => {
                let others = page.others;
                self.answer(now, conn, kind::SESSION_JOBS, None, None, &page);
                self.audit_listing(now, session, others);
            }
            Ok(Found::Unjudged(jobs)) => self.ask_for_page(now, listing, jobs),
            Err(error) => self.answer_error(now, conn, error, Some(listing.request_id)),
        }
    }

    /// The page, once everything on the way to its end is judged; a page is walked anew with each answer, since the jobs
    /// on it may have ended or gone meanwhile.
    fn page<'a>(&self, listing: &'a Listing) -> Result<Found<'a>, Error> {
        let Listing { session: key, request_id, asked, verdicts, .. } = listing;
        let key = *key;
        let session = self.sessions.get(&key).filter(|session| session.features.has(Feature::ListJobs));
        let Some(session) = session else {
            return Err(Error::invalid("list_jobs was not negotiated; the welcome lists what was"));
        };
        let principal = &session.principal;
        let filter = Filter::new(asked.filter.clone().unwrap_or_default());
        let seal = filter.seal();
        let cursor = asked.cursor.as_deref().map(|text| self.cursor_key.read(text, principal, &seal)).transpose()?;
        let limit = asked.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
        let most = PAGE_BYTES.min(self.config.limits.max_bytes / 2);
        let mut page = Page { request_id, jobs: Vec::new(), next_cursor: None, others: 0 };
        let own_only = self.judge.sees_own_only(principal);
        let shelf = if own_only { self.index.by_principal.get(principal) } else { self.index.everybody.as_ref() };
        let Some(shelf) = shelf else { return Ok(Found::Page(page)) };
        let walk = if filter.asks_for_live_only() { &shelf.live } else { &shelf.kept };
        let (mut bytes, mut last) = (0, None);
        let mut unjudged = Vec::new();
        for (looked_at, (place, job)) in walk.range((filter.start(cursor), Bound::Unbounded)).enumerate() {
            if filter.before.is_some_and(|before| place.0 >= before) {
                break;
            }
            if looked_at == MAX_LOOKED_AT {
                page.next_cursor = last.map(|last| self.cursor_key.write(last, principal, &seal));
                break;
            }
            let decision = self.jobs.get(job).filter(|found| filter.matches(found)).map(|found| {
                let decided = self.observes(key, principal, found);
                (found, decided.or_else(|| verdicts.get(job).copied()))
            });
            let listed = match decision {
                Some((found, Some(Decision::Allowed))) => Some(found),
                Some((_, None)) if job.0 > listing.until => None,
                Some((_, None)) => {
                    // Whatever may be on the page is asked for at once; then ever more, since most of it was not shown.
                    unjudged.push(*job);
                    let wanted = (limit as usize + 1).saturating_sub(page.jobs.len());
                    if unjudged.len() >= wanted.max(verdicts.len()).max(LEAST_ASKED) {
                        break;
                    }
                    None
                }
                Some((_, Some(Decision::Known | Decision::Hidden))) | None => None,
            };
            if let Some(job) = listed {
                // There is a next page only if something that may be shown is on it.
                let full = page.jobs.len() as u64 == limit;
                let entry = if full { None } else { Some(entry(job, session.name.profile)?) };
                let size = entry.as_ref().map_or(0, |entry| entry.get().len());
                match entry {
                    Some(entry) if page.jobs.is_empty() || bytes + size <= most => {
                        page.others += usize::from(job.start.principal != *principal);
                        page.jobs.push(entry);
                    }
                    _ => {
                        page.next_cursor = last.map(|last| self.cursor_key.write(last, principal, &seal));
                        break;
                    }
                }
                bytes += size;
            }
            last = Some(place);
        }
        Ok(if unjudged.is_empty() { Found::Page(page) } else { Found::Unjudged(unjudged) })
    }
}

/// A request for a page that waits for the store.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) conn: ConnKey,
    pub(super) session: SessionKey,
    pub(super) request_id: String,
    asked: ListJobs,
    /// The last key given when it was asked for: of a later job the policy is not asked, else the page might never be whole.
    until: u64,
    /// What a policy that is asked has said so far: at most as many as are looked at for a page.
    pub(super) verdicts: HashMap<JobKey, Decision>,
}

/// What a walk came to.
enum Found<'a> {
    Page(Page<'a>),
    /// The policy must say about these first.
    Unjudged(Vec<JobKey>),
}

/// Never a credential.
fn entry(job: &Job, profile: WireProfile) -> Result<Box<RawValue>, Error> {
    let constraints = job.start.lease_constraints.as_ref();
    let entry = JobEntry {
        job_id: job.start.job_id.to_string(),
        agent: job.start.agent_ref(),
        status: job.status,
        lease: job.accepted.lease.clone(),
        lease_constraints: constraints.map(RawJson::from_serialize).transpose()?,
        budget: job.budget_json().and_then(|budget| match profile {
            WireProfile::Py11 => text_budget(&budget),
            WireProfile::Draft => Some(budget),
        }),
        parent_job_id: job.start.parent_job_id.as_deref().map(str::to_owned),
        created_at: job.created_at,
        submitted_at: job.created_at,
        trace_id: Some(job.start.trace_id.to_string()),
        last_event_seq: job.source_seq,
    };
    serde_json::value::to_raw_value(&entry).map_err(|_| Error::internal("a job cannot be listed"))
}
