//! The check before every operation (R-9.3.1): expiry, then coverage, then budget (R-9.3.3).

use super::target::{Kind, normalize_target};
use super::{Lease, quoted};
use crate::budget::Budget;
use crate::error::{Error, ErrorCode};
use crate::json::RawJson;
use crate::time::Timestamp;

/// Whether an operation may go ahead.
///
/// `budgets` are the job's own and its ancestors' (R-9.4.8); `None` when nothing is budgeted.
/// `LEASE_EXPIRED` at or after the end (R-9.5.3), `PERMISSION_DENIED` when no pattern covers the normalised
/// target (R-9.3.2), `BUDGET_EXHAUSTED` with `details` `{"currency", "remaining"}` when a counter is used up
/// (R-9.6.9). A lease without `model.use` refuses every model here; whether to ask is the caller's setting (R-9.7.3).
pub fn authorize<'a>(
    lease: &Lease,
    expires_at: Option<Timestamp>,
    budgets: impl IntoIterator<Item = &'a Budget>,
    now: Timestamp,
    namespace: &str,
    target: &str,
) -> Result<(), Error> {
    if let Some(end) = expires_at.filter(|end| *end <= now) {
        return Err(Error::new(ErrorCode::LeaseExpired, format!("the lease ended at {end}")));
    }
    check_coverage(lease, namespace, target)?;
    if is_budgeted(namespace)
        && let Some((currency, remaining)) = budgets.into_iter().find_map(Budget::exhausted)
    {
        let message = format!("the {currency} budget is used up: {remaining} remaining");
        let mut error = Error::new(ErrorCode::BudgetExhausted, message);
        error.details = RawJson::parse(&format!(r#"{{"currency":"{currency}","remaining":"{remaining}"}}"#)).ok();
        return Err(error);
    }
    Ok(())
}

/// The operations a used-up budget stops (R-9.6.9).
pub fn is_budgeted(namespace: &str) -> bool {
    matches!(namespace, "tool.call" | "fs.read" | "fs.write" | "net.fetch" | "agent.delegate" | super::MODEL_USE)
}

fn check_coverage(lease: &Lease, namespace: &str, target: &str) -> Result<(), Error> {
    let denied = |message: String| Err(Error::new(ErrorCode::PermissionDenied, message));
    let Some(kind) = Kind::of(namespace) else {
        return denied(format!("{} is not a namespace a lease can grant", quoted(namespace)));
    };
    let normal = match normalize_target(kind, target) {
        Ok(normal) => normal,
        // The target itself stays out: it may carry a password.
        Err(reason) => return denied(format!("the {namespace} target {reason}")),
    };
    if lease.covers(namespace, &normal) {
        return Ok(());
    }
    // Queries carry keys and tokens.
    let shown = match normal.split_once('?') {
        Some((address, _)) if kind == Kind::Url => format!("{address}?…"),
        _ => normal.to_string(),
    };
    let hint = match lease.patterns(namespace) {
        None => "; the lease does not name that namespace",
        Some(patterns) if patterns.contains(&"*") => "; `*` stops at `/`, write `**` for all",
        Some(_) => "",
    };
    denied(format!("the lease does not cover {namespace} {}{hint}", quoted(&shown)))
}
