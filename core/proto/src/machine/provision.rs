//! What is asked of a provisioner and what it gives back (runtime-protocol section 9.8).

use std::sync::Arc;

use crate::budget::Budget;
use crate::json::RawJson;
use crate::lease::Lease;
use crate::message::Credential;
use crate::time::Timestamp;

/// What credentials are wanted for.
#[derive(Clone, Debug)]
pub struct IssueRequest {
    /// Unique to this request and stored before it is made (D-127): whatever is issued must be found again by it, since
    /// the process may die before the answer is stored.
    pub intent: Arc<str>,
    /// The job.
    pub job_id: Arc<str>,
    /// Who submitted it.
    pub principal: Arc<str>,
    /// `name@version`, or the bare name.
    pub agent: String,
    /// The effective lease.
    pub lease: Arc<Lease>,
    /// The job's counters as they start.
    pub budget: Option<Budget>,
    /// Patterns of `model.use`: an empty list allows no model, `None` leaves models unrestricted.
    pub models: Option<Vec<String>>,
    /// When the lease ends.
    pub expires_at: Option<Timestamp>,
    /// The delegating job.
    pub parent_job_id: Option<Arc<str>>,
    /// When this was asked.
    pub asked_at: Timestamp,
}

/// A credential and the way to take it back.
#[derive(Clone, Debug)]
pub struct Issued {
    /// What the client gets. Its value serves this job only (R-9.8.2.3).
    pub credential: Credential,
    /// What the provisioner needs to revoke this very value, not another that shares its id (R-9.8.2.8). It is stored:
    /// it must not hold the value, and must not be `null`.
    pub handle: RawJson,
}

/// What is to be revoked.
#[derive(Clone, Debug, PartialEq)]
pub enum Revocation {
    /// The value this handle stands for.
    Handle(RawJson),
    /// Whatever was issued under this intent, if anything was: its answer never came, or was not stored.
    Intent(String),
}
