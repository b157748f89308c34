//! What an operator wants to look up later: who was let in, who asked for what, and what was refused (R-14.5).
//!
//! An entry takes names, ids and codes, never a token, a credential's value, an input or a message of an error, so it
//! holds no secret by construction. A URL is kept without user, query and fragment.

use std::borrow::Cow;
use std::sync::Arc;

use crate::error::ErrorCode;
use crate::json::ObjectWriter;
use crate::time::Timestamp;

/// A longer value is cut, in characters.
pub const MAX_VALUE: usize = 256;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditAction {
    /// A token was verified.
    Authenticate,
    /// A session was to be resumed.
    Resume,
    /// A job was submitted.
    Submit,
    /// A job was to be followed (R-7.6.23).
    Subscribe,
    /// Jobs of other principals were listed.
    List,
    /// A job was to be cancelled.
    Cancel,
    /// A lease did not cover an operation (R-9.3.8).
    Operation,
    /// A lease ended while its job lived (R-9.5.10).
    LeaseExpiry,
    /// A credential was issued for a job.
    CredentialIssue,
    /// A credential was replaced.
    CredentialRotate,
    /// A credential was revoked, or could not be.
    CredentialRevoke,
    /// A session is over.
    SessionEnd,
    /// Entries are missing here, because they came faster than they could be written.
    Dropped,
}

impl AuditAction {
    /// The member `action`.
    pub fn as_str(self) -> &'static str {
        match self {
            AuditAction::Authenticate => "authenticate",
            AuditAction::Resume => "resume",
            AuditAction::Submit => "submit",
            AuditAction::Subscribe => "subscribe",
            AuditAction::List => "list",
            AuditAction::Cancel => "cancel",
            AuditAction::Operation => "operation",
            AuditAction::LeaseExpiry => "lease_expiry",
            AuditAction::CredentialIssue => "credential_issue",
            AuditAction::CredentialRotate => "credential_rotate",
            AuditAction::CredentialRevoke => "credential_revoke",
            AuditAction::SessionEnd => "session_end",
            AuditAction::Dropped => "dropped",
        }
    }
}

/// Why a resume was refused. The peer is told less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResumeRefusal {
    /// No session of that id is kept.
    UnknownSession,
    /// The resume token is not the one in force.
    WrongToken,
    /// The session belongs to another principal.
    WrongPrincipal,
    /// Events after the named one are no longer kept.
    NotCovered,
    /// The session was without a connection for too long.
    WindowOver,
}

impl ResumeRefusal {
    /// Every reason, in the order of [`ResumeRefusal::index`].
    pub const ALL: [ResumeRefusal; 5] = [
        ResumeRefusal::UnknownSession,
        ResumeRefusal::WrongToken,
        ResumeRefusal::WrongPrincipal,
        ResumeRefusal::NotCovered,
        ResumeRefusal::WindowOver,
    ];

    /// The member `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            ResumeRefusal::UnknownSession => "unknown_session",
            ResumeRefusal::WrongToken => "wrong_token",
            ResumeRefusal::WrongPrincipal => "wrong_principal",
            ResumeRefusal::NotCovered => "not_covered",
            ResumeRefusal::WindowOver => "window_over",
        }
    }

    /// Its place in [`ResumeRefusal::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionEnd {
    /// Its client closed it.
    Closed,
    /// Nobody came back within the resume window.
    WindowOver,
    /// The runtime stopped, and keeps no sessions beyond its process.
    Shutdown,
    /// It made room for others.
    Evicted,
}

impl SessionEnd {
    /// The member `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            SessionEnd::Closed => "closed",
            SessionEnd::WindowOver => "window_over",
            SessionEnd::Shutdown => "shutdown",
            SessionEnd::Evicted => "evicted",
        }
    }
}

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    at: Timestamp,
    action: AuditAction,
    allowed: bool,
    principal: Option<Arc<str>>,
    session_id: Option<Arc<str>>,
    job_id: Option<Arc<str>>,
    reason: Option<Cow<'static, str>>,
    details: Vec<(&'static str, String)>,
}

/// Whoever acts in a session: its principal and its id.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// Who.
    pub principal: &'a str,
    /// Through which session.
    pub session_id: &'a str,
}

impl AuditEntry {
    fn new(at: Timestamp, action: AuditAction) -> Self {
        AuditEntry {
            at,
            action,
            allowed: true,
            principal: None,
            session_id: None,
            job_id: None,
            reason: None,
            details: Vec::new(),
        }
    }

    fn of(at: Timestamp, action: AuditAction, actor: Actor<'_>) -> Self {
        AuditEntry::new(at, action).by(actor.principal).within(actor.session_id)
    }

    fn by(mut self, principal: &str) -> Self {
        self.principal = Some(cut(principal).into());
        self
    }

    fn within(mut self, session_id: &str) -> Self {
        self.session_id = Some(cut(session_id).into());
        self
    }

    fn about(mut self, job_id: &str) -> Self {
        self.job_id = Some(cut(job_id).into());
        self
    }

    fn because(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason.into());
        self
    }

    fn refused(mut self, reason: &'static str) -> Self {
        self.allowed = false;
        self.because(reason)
    }

    fn refused_with(mut self, code: &ErrorCode) -> Self {
        self.allowed = false;
        self.reason = Some(match code {
            // Somebody's own text.
            ErrorCode::Other(_) => "OTHER".into(),
            code => code.as_str().to_owned().into(),
        });
        self
    }

    fn detail(mut self, name: &'static str, value: &str) -> Self {
        self.details.push((name, cut(value).to_owned()));
        self
    }

    /// A token was found to be this principal's.
    pub fn authenticated(at: Timestamp, principal: &str) -> Self {
        AuditEntry::new(at, AuditAction::Authenticate).by(principal)
    }

    /// A token was refused, or could not be verified.
    pub fn authentication_refused(at: Timestamp, code: &ErrorCode) -> Self {
        AuditEntry::new(at, AuditAction::Authenticate).refused_with(code)
    }

    /// A session goes on.
    pub fn resumed(at: Timestamp, actor: Actor<'_>) -> Self {
        AuditEntry::of(at, AuditAction::Resume, actor)
    }

    /// A session does not go on. `actor.session_id` is the session that was asked for.
    pub fn resume_refused(at: Timestamp, actor: Actor<'_>, why: ResumeRefusal) -> Self {
        AuditEntry::of(at, AuditAction::Resume, actor).refused(why.as_str())
    }

    /// A job was accepted; `repeated` when an idempotency key led to an earlier one.
    pub fn submitted(at: Timestamp, actor: Actor<'_>, job_id: &str, agent: &str, repeated: bool) -> Self {
        let entry = AuditEntry::of(at, AuditAction::Submit, actor).about(job_id).detail("agent", agent);
        if repeated { entry.because("repeated") } else { entry }
    }

    /// A job was refused.
    pub fn submit_refused(at: Timestamp, actor: Actor<'_>, agent: &str, code: &ErrorCode) -> Self {
        AuditEntry::of(at, AuditAction::Submit, actor).detail("agent", agent).refused_with(code)
    }

    /// A job of `owner` is followed (R-7.6.23).
    pub fn subscribed(at: Timestamp, actor: Actor<'_>, job_id: &str, owner: &str) -> Self {
        AuditEntry::of(at, AuditAction::Subscribe, actor).about(job_id).detail("owner", owner)
    }

    /// A job is not to be followed; `owner` when there is such a job.
    pub fn subscribe_refused(
        at: Timestamp,
        actor: Actor<'_>,
        job_id: &str,
        owner: Option<&str>,
        code: &ErrorCode,
    ) -> Self {
        let entry = AuditEntry::of(at, AuditAction::Subscribe, actor).about(job_id).refused_with(code);
        owner.map_or(entry.clone(), |owner| entry.detail("owner", owner))
    }

    /// So many jobs of other principals were shown in a listing.
    pub fn listed_across(at: Timestamp, actor: Actor<'_>, jobs: usize) -> Self {
        AuditEntry::of(at, AuditAction::List, actor).detail("jobs", &jobs.to_string())
    }

    /// A job of `owner` is made to give way.
    pub fn cancelled(at: Timestamp, actor: Actor<'_>, job_id: &str, owner: &str) -> Self {
        AuditEntry::of(at, AuditAction::Cancel, actor).about(job_id).detail("owner", owner)
    }

    /// A job goes on; `owner` when there is such a job.
    pub fn cancel_refused(
        at: Timestamp,
        actor: Actor<'_>,
        job_id: &str,
        owner: Option<&str>,
        code: &ErrorCode,
    ) -> Self {
        let entry = AuditEntry::of(at, AuditAction::Cancel, actor).about(job_id).refused_with(code);
        owner.map_or(entry.clone(), |owner| entry.detail("owner", owner))
    }

    /// A job may not do this: `target` is the normalised one (R-9.3.8).
    pub fn operation_refused(
        at: Timestamp,
        actor: Actor<'_>,
        job_id: &str,
        (namespace, target): (&str, &str),
        code: &ErrorCode,
    ) -> Self {
        AuditEntry::of(at, AuditAction::Operation, actor)
            .about(job_id)
            .refused_with(code)
            .detail("namespace", namespace)
            .detail("target", &without_secrets(target))
    }

    /// The lease of a job that has not ended is over (R-9.5.10).
    pub fn lease_expired(at: Timestamp, actor: Actor<'_>, job_id: &str) -> Self {
        AuditEntry::of(at, AuditAction::LeaseExpiry, actor).about(job_id)
    }

    /// A job got a credential.
    pub fn credential_issued(at: Timestamp, principal: &str, job_id: &str, credential_id: &str) -> Self {
        AuditEntry::credential(at, AuditAction::CredentialIssue, principal, job_id, credential_id)
    }

    /// A job's credential was replaced by the one named.
    pub fn credential_rotated(at: Timestamp, principal: &str, job_id: &str, credential_id: &str) -> Self {
        AuditEntry::credential(at, AuditAction::CredentialRotate, principal, job_id, credential_id)
    }

    /// A credential is worth nothing any more.
    pub fn credential_revoked(at: Timestamp, principal: &str, job_id: &str, credential_id: &str) -> Self {
        AuditEntry::credential(at, AuditAction::CredentialRevoke, principal, job_id, credential_id)
    }

    /// A credential could not be revoked in this attempt, counted from 1.
    pub fn revocation_failed(at: Timestamp, principal: &str, job_id: &str, credential_id: &str, attempt: u32) -> Self {
        AuditEntry::credential(at, AuditAction::CredentialRevoke, principal, job_id, credential_id)
            .refused("failed")
            .detail("attempt", &attempt.to_string())
    }

    fn credential(at: Timestamp, action: AuditAction, principal: &str, job_id: &str, credential_id: &str) -> Self {
        AuditEntry::new(at, action).by(principal).about(job_id).detail("credential_id", credential_id)
    }

    /// A session is over for good.
    pub fn session_ended(at: Timestamp, actor: Actor<'_>, why: SessionEnd) -> Self {
        AuditEntry::of(at, AuditAction::SessionEnd, actor).because(why.as_str())
    }

    /// So many entries were lost before this one.
    pub fn dropped(at: Timestamp, entries: u64) -> Self {
        AuditEntry::new(at, AuditAction::Dropped).detail("entries", &entries.to_string())
    }

    /// When it happened.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// What happened.
    pub fn action(&self) -> AuditAction {
        self.action
    }

    /// Whether it was let happen.
    pub fn is_allowed(&self) -> bool {
        self.allowed
    }

    /// Why: an error code, or a word of [`ResumeRefusal`] or [`SessionEnd`].
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// One line of JSON: `at`, `action`, `decision` (`allowed` or `refused`), then, where there are any, `principal`,
    /// `session_id`, `job_id`, `reason` and the object `details` of texts, in this order.
    pub fn to_json(&self) -> String {
        let mut out = ObjectWriter::new();
        out.text("at", &self.at.to_string());
        out.text("action", self.action.as_str());
        out.text("decision", if self.allowed { "allowed" } else { "refused" });
        out.opt_text("principal", self.principal.as_deref());
        out.opt_text("session_id", self.session_id.as_deref());
        out.opt_text("job_id", self.job_id.as_deref());
        out.opt_text("reason", self.reason.as_deref());
        if !self.details.is_empty() {
            let mut details = ObjectWriter::new();
            for (name, value) in &self.details {
                details.text(name, value);
            }
            out.json("details", &details.into_text());
        }
        out.into_text()
    }
}

/// The first [`MAX_VALUE`] characters.
fn cut(text: &str) -> &str {
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// A URL without what may be secret in it: user and password, query, fragment. Other targets as they are.
fn without_secrets(target: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = target.split_once("://") else { return target.into() };
    let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp(1_700_000_000_000);
    const ME: Actor<'static> = Actor { principal: "me@example.com", session_id: "sess_1" };

    /// The entry without the members that every entry of these tests has.
    fn rest(entry: &AuditEntry) -> String {
        let json = entry.to_json();
        json.strip_prefix("{\"at\":\"2023-11-14T22:13:20.000Z\",\"action\":")
            .unwrap()
            .replace(",\"principal\":\"me@example.com\",\"session_id\":\"sess_1\"", ",ME")
    }

    #[test]
    fn every_entry_is_one_line_with_its_members_in_order() {
        let denied = ErrorCode::PermissionDenied;
        for (entry, expected) in [
            (AuditEntry::authenticated(AT, "me"), r#""authenticate","decision":"allowed","principal":"me"}"#),
            (
                AuditEntry::authentication_refused(AT, &ErrorCode::Unauthenticated),
                r#""authenticate","decision":"refused","reason":"UNAUTHENTICATED"}"#,
            ),
            (AuditEntry::resumed(AT, ME), r#""resume","decision":"allowed",ME}"#),
            (
                AuditEntry::resume_refused(AT, ME, ResumeRefusal::WrongPrincipal),
                r#""resume","decision":"refused",ME,"reason":"wrong_principal"}"#,
            ),
            (
                AuditEntry::submitted(AT, ME, "job_1", "echo@1", false),
                r#""submit","decision":"allowed",ME,"job_id":"job_1","details":{"agent":"echo@1"}}"#,
            ),
            (
                AuditEntry::submitted(AT, ME, "job_1", "echo", true),
                r#""submit","decision":"allowed",ME,"job_id":"job_1","reason":"repeated","details":{"agent":"echo"}}"#,
            ),
            (
                AuditEntry::submit_refused(AT, ME, "nobody", &ErrorCode::AgentNotAvailable),
                r#""submit","decision":"refused",ME,"reason":"AGENT_NOT_AVAILABLE","details":{"agent":"nobody"}}"#,
            ),
            (
                AuditEntry::subscribed(AT, ME, "job_1", "you"),
                r#""subscribe","decision":"allowed",ME,"job_id":"job_1","details":{"owner":"you"}}"#,
            ),
            (
                AuditEntry::subscribe_refused(AT, ME, "job_1", None, &ErrorCode::JobNotFound),
                r#""subscribe","decision":"refused",ME,"job_id":"job_1","reason":"JOB_NOT_FOUND"}"#,
            ),
            (AuditEntry::listed_across(AT, ME, 3), r#""list","decision":"allowed",ME,"details":{"jobs":"3"}}"#),
            (
                AuditEntry::cancelled(AT, ME, "job_1", "me"),
                r#""cancel","decision":"allowed",ME,"job_id":"job_1","details":{"owner":"me"}}"#,
            ),
            (
                AuditEntry::cancel_refused(AT, ME, "job_1", Some("you"), &denied),
                r#""cancel","decision":"refused",ME,"job_id":"job_1","reason":"PERMISSION_DENIED","details":{"owner":"you"}}"#,
            ),
            (
                AuditEntry::operation_refused(AT, ME, "job_1", ("fs.read", "/etc/passwd"), &denied),
                r#""operation","decision":"refused",ME,"job_id":"job_1","reason":"PERMISSION_DENIED","details":{"namespace":"fs.read","target":"/etc/passwd"}}"#,
            ),
            (AuditEntry::lease_expired(AT, ME, "job_1"), r#""lease_expiry","decision":"allowed",ME,"job_id":"job_1"}"#),
            (
                AuditEntry::credential_issued(AT, "me", "job_1", "cred_1"),
                r#""credential_issue","decision":"allowed","principal":"me","job_id":"job_1","details":{"credential_id":"cred_1"}}"#,
            ),
            (
                AuditEntry::revocation_failed(AT, "me", "job_1", "cred_1", 2),
                r#""credential_revoke","decision":"refused","principal":"me","job_id":"job_1","reason":"failed","details":{"credential_id":"cred_1","attempt":"2"}}"#,
            ),
            (
                AuditEntry::session_ended(AT, ME, SessionEnd::WindowOver),
                r#""session_end","decision":"allowed",ME,"reason":"window_over"}"#,
            ),
            (AuditEntry::dropped(AT, 7), r#""dropped","decision":"allowed","details":{"entries":"7"}}"#),
        ] {
            assert_eq!(rest(&entry), expected);
        }
    }

    #[test]
    fn what_a_peer_writes_stays_on_one_line_and_is_cut() {
        let long = format!("a\n\"{}", "é".repeat(1000));
        let entry = AuditEntry::submitted(AT, Actor { principal: &long, session_id: &long }, &long, &long, false);
        let json = entry.to_json();
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        for member in [&read["principal"], &read["session_id"], &read["job_id"], &read["details"]["agent"]] {
            assert_eq!(member.as_str().map(|text| text.chars().count()), Some(MAX_VALUE));
        }
        assert!(!json.contains('\n'));
        let code = ErrorCode::Other("hunter2".into());
        assert_eq!(AuditEntry::authentication_refused(AT, &code).reason(), Some("OTHER"));
    }

    #[test]
    fn a_url_is_kept_without_what_may_be_secret() {
        for (target, kept) in [
            ("https://user:pass@host:8443/a/b?key=1#f", "https://host:8443/a/b"),
            ("https://host?key=1", "https://host"),
            ("https://a@b@host/x@y", "https://host/x@y"),
            ("/data/what?#", "/data/what?#"),
            ("search.web", "search.web"),
        ] {
            assert_eq!(without_secrets(target), kept);
        }
    }

    #[test]
    fn every_resume_refusal_has_its_own_place_and_word() {
        for (at, why) in ResumeRefusal::ALL.into_iter().enumerate() {
            assert_eq!(
                (why.index(), ResumeRefusal::ALL.iter().position(|other| other.as_str() == why.as_str())),
                (at, Some(at))
            );
        }
    }
}
