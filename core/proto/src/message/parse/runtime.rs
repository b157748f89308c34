//! What a client reads.

use serde_json::value::RawValue;

use super::client::peer;
use super::{bye, job_id, lease_constraints, object, one_id, owned, payload, ping, pong, reason};
use crate::envelope::Head;
use crate::error::{Error, ErrorCode};
use crate::json::{Fields, ObjectWriter, RawJson, number, shape, string};
use crate::message::{
    Accepted, AgentEntry, Cancelled, Closed, JobEntry, JobError, JobResult, JobStatus, Jobs, RuntimeCapabilities,
    RuntimeMessage, Secret, SessionError, Subscribed, Welcome, kind,
};
use crate::time::Timestamp;

impl RuntimeMessage {
    /// Reads what a runtime says.
    ///
    /// `INVALID_REQUEST` for a faulty payload; such a message still advances the sequence (D-29). Unknown types and those
    /// only a client sends are [`RuntimeMessage::Ignored`]. Of a `job.event` only the envelope is checked
    /// here: [`crate::event::EventPayload::parse`] reads its payload, once, where it is needed.
    pub fn parse(head: &Head<'_>) -> Result<RuntimeMessage, Error> {
        if kind::is_numbered(&head.kind) {
            require_place(head)?;
        }
        if head.kind == kind::JOB_EVENT {
            return Ok(RuntimeMessage::Event);
        }
        if !kind::FROM_RUNTIME.contains(&&*head.kind) {
            return Ok(RuntimeMessage::Ignored);
        }
        let fields = payload(head)?;
        Ok(match &*head.kind {
            kind::SESSION_WELCOME => RuntimeMessage::Welcome(welcome(head, &fields)?),
            kind::SESSION_PING => RuntimeMessage::Ping(ping(&fields)?),
            kind::SESSION_PONG => RuntimeMessage::Pong(pong(&fields)?),
            kind::SESSION_JOBS => RuntimeMessage::Jobs(jobs(&fields)?),
            kind::SESSION_CLOSED => {
                RuntimeMessage::Closed(Closed { reason: reason(&fields)?, request_id: request_id(&fields)? })
            }
            kind::SESSION_BYE => RuntimeMessage::Bye(bye(&fields)?),
            kind::SESSION_ERROR => {
                RuntimeMessage::Error(SessionError { error: read_error(&fields)?, request_id: request_id(&fields)? })
            }
            kind::JOB_ACCEPTED => RuntimeMessage::Accepted(accepted(head, &fields)?),
            kind::JOB_CANCELLED => RuntimeMessage::Cancelled(Cancelled {
                job_id: job_id(head, &fields)?,
                reason: reason(&fields)?,
                current_status: opt_status(&fields, "current_status")?,
                request_id: request_id(&fields)?,
            }),
            kind::JOB_RESULT => RuntimeMessage::Result(job_result(&fields)?),
            kind::JOB_ERROR => RuntimeMessage::JobError(job_error(&fields)?),
            kind::JOB_SUBSCRIBED => RuntimeMessage::Subscribed(subscribed(head, &fields)?),
            _ => RuntimeMessage::Ignored,
        })
    }

    /// The type of the message; `None` for one that was ignored.
    pub fn kind(&self) -> Option<&'static str> {
        Some(match self {
            RuntimeMessage::Welcome(_) => kind::SESSION_WELCOME,
            RuntimeMessage::Ping(_) => kind::SESSION_PING,
            RuntimeMessage::Pong(_) => kind::SESSION_PONG,
            RuntimeMessage::Jobs(_) => kind::SESSION_JOBS,
            RuntimeMessage::Closed(_) => kind::SESSION_CLOSED,
            RuntimeMessage::Bye(_) => kind::SESSION_BYE,
            RuntimeMessage::Error(_) => kind::SESSION_ERROR,
            RuntimeMessage::Accepted(_) => kind::JOB_ACCEPTED,
            RuntimeMessage::Cancelled(_) => kind::JOB_CANCELLED,
            RuntimeMessage::Event => kind::JOB_EVENT,
            RuntimeMessage::Result(_) => kind::JOB_RESULT,
            RuntimeMessage::JobError(_) => kind::JOB_ERROR,
            RuntimeMessage::Subscribed(_) => kind::JOB_SUBSCRIBED,
            RuntimeMessage::Ignored => return None,
        })
    }
}

/// A message of a job's stream names its job and its number.
fn require_place(head: &Head<'_>) -> Result<(), Error> {
    let missing = match (&head.job_id, head.event_seq) {
        (Some(_), Some(_)) => return Ok(()),
        (None, _) => "job_id",
        (_, None) => "event_seq",
    };
    Err(Error::invalid(format!("{missing} is missing on a {}; send it on the envelope", head.kind)))
}

fn request_id(fields: &Fields<'_>) -> Result<Option<String>, Error> {
    Ok(owned(fields.opt_str("request_id", "the id of the request")?))
}

fn welcome(head: &Head<'_>, fields: &Fields<'_>) -> Result<Welcome, Error> {
    Ok(Welcome {
        session_id: one_id("session_id", head.session_id.as_deref(), fields)?,
        runtime: peer(&fields.object("runtime")?)?,
        resume_token: fields.non_empty("resume_token", "a new resume token")?.into(),
        resume_window_sec: fields.u64("resume_window_sec", 0)?,
        heartbeat_interval_sec: fields.opt_u64("heartbeat_interval_sec", 1)?,
        capabilities: capabilities(fields)?,
        accepted_at: fields.opt_time("accepted_at")?,
    })
}

fn capabilities(fields: &Fields<'_>) -> Result<RuntimeCapabilities, Error> {
    let mut read = RuntimeCapabilities { encodings: vec!["json".into()], features: Vec::new(), agents: Vec::new() };
    let Some(fields) = fields.opt_object("capabilities")? else { return Ok(read) };
    if let Some(encodings) = fields.opt_strings("encodings")? {
        read.encodings = encodings;
    }
    read.features = fields.opt_strings("features")?.unwrap_or_default();
    for (at, entry) in fields.opt_list("agents")?.unwrap_or_default().into_iter().enumerate() {
        // Plain names are what peers of the first version, and two published ones by setting, send.
        read.agents.push(match string(entry) {
            Some(name) => AgentEntry { name: name.into(), versions: Vec::new(), default: None },
            None => agent_entry(&Fields::read(format!("payload.capabilities.agents[{at}]"), entry)?)?,
        });
    }
    Ok(read)
}

fn agent_entry(fields: &Fields<'_>) -> Result<AgentEntry, Error> {
    Ok(AgentEntry {
        name: fields.non_empty("name", "an agent name")?.into(),
        versions: fields.opt_strings("versions")?.unwrap_or_default(),
        default: owned(fields.opt_str("default", "a version")?),
    })
}

fn jobs(fields: &Fields<'_>) -> Result<Jobs, Error> {
    let entries = fields.opt_list("jobs")?.ok_or_else(|| fields.fault("jobs", "a list", "[...]"))?;
    let entry = |(at, entry)| job_entry(&Fields::read(format!("payload.jobs[{at}]"), entry)?);
    Ok(Jobs {
        request_id: fields.str("request_id", "the id of the request")?.into(),
        jobs: entries.into_iter().enumerate().map(entry).collect::<Result<_, _>>()?,
        next_cursor: owned(fields.opt_str("next_cursor", "a cursor or null")?),
    })
}

fn job_entry(fields: &Fields<'_>) -> Result<JobEntry, Error> {
    let (created, submitted) = (fields.opt_time("created_at")?, fields.opt_time("submitted_at")?);
    let created_at =
        created.or(submitted).ok_or_else(|| fields.fault("created_at", "a time", "\"YYYY-MM-DDThh:mm:ss.sssZ\""))?;
    Ok(JobEntry {
        job_id: fields.non_empty("job_id", "a job id")?.into(),
        agent: fields.non_empty("agent", "\"name@version\"")?.into(),
        status: status(fields, "status")?,
        lease: object(fields, "lease")?.unwrap_or_else(RawJson::empty_object),
        lease_constraints: object(fields, "lease_constraints")?,
        budget: budget(fields)?,
        parent_job_id: owned(fields.opt_str("parent_job_id", "a job id or null")?),
        created_at,
        submitted_at: submitted.unwrap_or(created_at),
        trace_id: owned(fields.opt_str("trace_id", "a trace id")?),
        last_event_seq: fields.opt_u64("last_event_seq", 0)?.unwrap_or(0),
    })
}

fn opt_status(fields: &Fields<'_>, name: &str) -> Result<Option<JobStatus>, Error> {
    let Some(text) = fields.opt_str(name, "\"running\"")? else { return Ok(None) };
    let fault = || fields.fault(name, "pending, running, success, error, cancelled or timed_out", "");
    JobStatus::parse(&text).map(Some).ok_or_else(fault)
}

fn status(fields: &Fields<'_>, name: &str) -> Result<JobStatus, Error> {
    opt_status(fields, name)?.ok_or_else(|| fields.fault(name, "the state of a job", ""))
}

fn accepted(head: &Head<'_>, fields: &Fields<'_>) -> Result<Accepted, Error> {
    Ok(Accepted {
        job_id: job_id(head, fields)?,
        agent: owned(fields.opt_str("agent", "\"name@version\"")?),
        lease: object(fields, "lease")?.ok_or_else(|| fields.fault("lease", "an object", "{...}"))?,
        lease_constraints: lease_constraints(fields, Timestamp::parse)?,
        budget: budget(fields)?,
        credentials: credentials(fields)?,
        accepted_at: fields.opt_time("accepted_at")?,
        trace_id: owned(fields.opt_str("trace_id", "a trace id")?),
        parent_job_id: owned(fields.opt_str("parent_job_id", "a job id")?),
        delegate_id: owned(fields.opt_str("delegate_id", "the id of the delegation")?),
        request_id: request_id(fields)?,
        max_runtime_sec: fields.opt_u64("max_runtime_sec", 1)?,
    })
}

fn subscribed(head: &Head<'_>, fields: &Fields<'_>) -> Result<Subscribed, Error> {
    // A published peer tells how many events it replayed instead of whether it did (D-62).
    let replayed = match fields.value("replayed") {
        Some(value) if number(value).is_some() => fields.u64("replayed", 0)? > 0,
        _ => fields.opt_bool("replayed")?.unwrap_or(false),
    };
    Ok(Subscribed {
        job_id: job_id(head, fields)?,
        current_status: status(fields, "current_status")?,
        agent: fields.non_empty("agent", "\"name@version\"")?.into(),
        lease: object(fields, "lease")?.unwrap_or_else(RawJson::empty_object),
        lease_constraints: lease_constraints(fields, Timestamp::parse)?,
        budget: budget(fields)?,
        credentials: credentials(fields)?,
        parent_job_id: owned(fields.opt_str("parent_job_id", "a job id or null")?),
        trace_id: owned(fields.opt_str("trace_id", "a trace id")?),
        subscribed_from: fields.u64("subscribed_from", 0)?,
        replayed,
        request_id: request_id(fields)?,
    })
}

fn job_result(fields: &Fields<'_>) -> Result<JobResult, Error> {
    let final_status = status(fields, "final_status")?;
    if !matches!(final_status, JobStatus::Success | JobStatus::Cancelled | JobStatus::TimedOut) {
        return Err(fields.fault("final_status", "success, or from some peers cancelled or timed_out", ""));
    }
    let result_id = owned(fields.opt_non_empty("result_id", "the id of the chunks")?);
    if result_id.is_some() && fields.value("result").is_some() {
        return Err(Error::invalid(
            "payload.result and payload.result_id must not stand together; send one of the two",
        ));
    }
    // A null result is a result, unless the other form shows that null means absent.
    let result = fields.raw("result").filter(|_| result_id.is_none()).map(RawJson::from_raw);
    Ok(JobResult {
        final_status,
        result,
        result_id,
        result_size: fields.opt_u64("result_size", 0)?,
        summary: owned(fields.opt_str("summary", "a sentence")?),
        completed_at: fields.opt_time("completed_at")?,
    })
}

fn job_error(fields: &Fields<'_>) -> Result<JobError, Error> {
    let final_status = status(fields, "final_status")?;
    if !matches!(final_status, JobStatus::Error | JobStatus::Cancelled | JobStatus::TimedOut) {
        return Err(fields.fault("final_status", "error, cancelled or timed_out", ""));
    }
    Ok(JobError { final_status, error: read_error(fields)?, completed_at: fields.opt_time("completed_at")? })
}

/// `{code, message, retryable, details?}`. Unknown codes keep their text, a pinned flag is corrected, and
/// a missing message or flag must not hide the code.
pub(crate) fn read_error(fields: &Fields<'_>) -> Result<Error, Error> {
    let code = ErrorCode::parse(&fields.non_empty("code", "an error code")?);
    let message =
        fields.opt_non_empty("message", "a sentence").or_else(|error| match fields.value("message").map(shape) {
            Some("empty text") => Ok(None),
            _ => Err(error),
        })?;
    let sent = fields.opt_bool("retryable")?;
    let retryable = code.pinned_retryable().or(sent).unwrap_or_else(|| code.default_retryable());
    let message = message.map_or_else(|| code.as_str().to_owned(), Into::into);
    Ok(Error { code, message, retryable, details: object(fields, "details")? })
}

/// Currency to number. Published peers write `"5.00"` and `"USD:5.00"`; both become the number, digit for digit (D-43).
fn budget(fields: &Fields<'_>) -> Result<Option<RawJson>, Error> {
    let Some(budget) = fields.opt_object("budget")? else { return Ok(None) };
    if budget.members().all(|(_, value)| number(value).is_some()) {
        return object(fields, "budget");
    }
    let mut out = ObjectWriter::new();
    for (currency, value) in budget.members() {
        let amount = amount(currency, value)
            .ok_or_else(|| budget.fault(currency, "a number, or that number as text", "5.00"))?;
        out.json(currency, &amount);
    }
    out.finish().map(Some)
}

fn amount(currency: &str, value: &RawValue) -> Option<String> {
    if let Some(number) = number(value) {
        return Some(number.to_owned());
    }
    let text = string(value)?;
    let text = match text.split_once(':') {
        Some((named, amount)) => (named == currency).then_some(amount)?,
        None => &*text,
    };
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    // JSON allows no leading zeros.
    let significant = digits.trim_start_matches('0');
    let zero = if significant.starts_with(|first: char| first.is_ascii_digit()) { "" } else { "0" };
    Some([sign, zero, significant].concat())
}

/// Bearer credentials in the draft's form; those of other schemes are dropped and the job kept (R-9.8.1.2).
fn credentials(fields: &Fields<'_>) -> Result<Option<Secret>, Error> {
    let Some(list) = fields.opt_list("credentials")? else { return Ok(None) };
    let mut out = String::from("[");
    for (at, item) in list.into_iter().enumerate() {
        let credential = Fields::read(format!("payload.credentials[{at}]"), item)?;
        if credential.non_empty("scheme", "\"bearer\"")? != "bearer" {
            continue;
        }
        for name in ["id", "value", "endpoint"] {
            credential.non_empty(name, "text")?;
        }
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&in_draft_form(&credential, item)?);
    }
    out.push(']');
    Ok(Some(Secret(RawJson::from_parts(out)?)))
}

/// Rewrites the constraints `allowed_models` and `max_spend` of a published peer to `model.use` and `cost.budget` (D-125).
fn in_draft_form(credential: &Fields<'_>, item: &RawValue) -> Result<String, Error> {
    let Some(constraints) = credential.opt_object("constraints")? else { return Ok(item.get().to_owned()) };
    let (models, spend) = (constraints.opt_strings("allowed_models")?, constraints.opt_object("max_spend")?);
    if models.is_none() && spend.is_none() {
        return Ok(item.get().to_owned());
    }
    let mut rewritten = ObjectWriter::new();
    for (name, value) in constraints.members().filter(|(name, _)| !matches!(*name, "allowed_models" | "max_spend")) {
        rewritten.json(name, value.get());
    }
    if let (Some(models), None) = (models, constraints.value("model.use")) {
        rewritten.json("model.use", RawJson::from_serialize(&models)?.get());
    }
    if let (Some(spend), None) = (spend, constraints.value("cost.budget")) {
        let currency = spend.non_empty("currency", "a currency")?;
        let amount = spend.value("amount").and_then(|value| amount(&currency, value));
        let amount = amount.ok_or_else(|| spend.fault("amount", "a number", "5.00"))?;
        rewritten.json("cost.budget", RawJson::from_serialize(&[format!("{currency}:{amount}")])?.get());
    }
    let rewritten = rewritten.into_text();
    let mut out = ObjectWriter::new();
    for (name, value) in credential.members() {
        out.json(name, if name == "constraints" { &rewritten } else { value.get() });
    }
    Ok(out.into_text())
}
