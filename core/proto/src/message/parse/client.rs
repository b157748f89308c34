//! What a runtime reads.

use super::{bye, job_id, lease_constraints, object, one_id, owned, payload, ping, pong, reason};
use crate::envelope::Head;
use crate::error::{Error, ErrorCode};
use crate::json::{Fields, RawJson};
use crate::message::{
    Ack, Auth, Cancel, ClientCapabilities, ClientMessage, Close, Hello, JobFilter, ListJobs, PeerInfo, Resume, Submit,
    Subscribe, Unsubscribe, kind,
};
use crate::time::Timestamp;

impl ClientMessage {
    /// Reads what a client says.
    ///
    /// `INVALID_REQUEST` for a faulty payload, a type only a runtime may send, an unknown type
    /// and a vendor type that is not marked optional; `UNAUTHENTICATED` for a hello without a bearer token
    /// . Whether jobs, agents and sessions exist and whether a lease makes sense is decided later.
    pub fn parse(head: &Head<'_>) -> Result<ClientMessage, Error> {
        let fields = payload(head)?;
        Ok(match &*head.kind {
            kind::SESSION_HELLO => ClientMessage::Hello(hello(&fields)?),
            kind::SESSION_RESUME => ClientMessage::Hello(resume_as_hello(head, &fields)?),
            kind::SESSION_PING => ClientMessage::Ping(ping(&fields)?),
            kind::SESSION_PONG => ClientMessage::Pong(pong(&fields)?),
            kind::SESSION_ACK => ClientMessage::Ack(Ack { last_processed_seq: fields.u64("last_processed_seq", 0)? }),
            kind::SESSION_LIST_JOBS => ClientMessage::ListJobs(list_jobs(&fields)?),
            kind::SESSION_CLOSE => ClientMessage::Close(Close { reason: reason(&fields)? }),
            kind::SESSION_BYE => ClientMessage::Bye(bye(&fields)?),
            kind::JOB_SUBMIT => ClientMessage::Submit(submit(&fields)?),
            kind::JOB_CANCEL => ClientMessage::Cancel(Cancel {
                reason: reason(&fields)?,
                job_id: job_id(head, &fields)?,
                code: owned(fields.opt_str("code", "an error code")?),
            }),
            kind::JOB_SUBSCRIBE => ClientMessage::Subscribe(Subscribe {
                job_id: job_id(head, &fields)?,
                from_event_seq: fields.opt_u64("from_event_seq", 0)?,
                history: fields.opt_bool("history")?.unwrap_or(false),
            }),
            kind::JOB_UNSUBSCRIBE => ClientMessage::Unsubscribe(Unsubscribe { job_id: job_id(head, &fields)? }),
            other if other.starts_with("x-vendor.") && head.optional => ClientMessage::Ignored,
            other => return Err(not_for_a_runtime(other)),
        })
    }

    /// The type of the message; `None` for one that was ignored. A `session.resume` has become a hello.
    pub fn kind(&self) -> Option<&'static str> {
        Some(match self {
            ClientMessage::Hello(_) => kind::SESSION_HELLO,
            ClientMessage::Ping(_) => kind::SESSION_PING,
            ClientMessage::Pong(_) => kind::SESSION_PONG,
            ClientMessage::Ack(_) => kind::SESSION_ACK,
            ClientMessage::ListJobs(_) => kind::SESSION_LIST_JOBS,
            ClientMessage::Close(_) => kind::SESSION_CLOSE,
            ClientMessage::Bye(_) => kind::SESSION_BYE,
            ClientMessage::Submit(_) => kind::JOB_SUBMIT,
            ClientMessage::Cancel(_) => kind::JOB_CANCEL,
            ClientMessage::Subscribe(_) => kind::JOB_SUBSCRIBE,
            ClientMessage::Unsubscribe(_) => kind::JOB_UNSUBSCRIBE,
            ClientMessage::Ignored => return None,
        })
    }
}

fn not_for_a_runtime(kind: &str) -> Error {
    // The type is the peer's own text: shown, but not at any length.
    let shown: String = kind.chars().filter(|c| !c.is_control()).take(64).collect();
    Error::invalid(match kind {
        "session.open" => "session.open belongs to another protocol that is also labelled 1.1; this runtime speaks the draft: send session.hello".into(),
        _ if kind::FROM_RUNTIME.contains(&kind) => format!("{shown} is sent by runtimes only; a client cannot send it"),
        _ if kind.starts_with("x-vendor.") => {
            format!("the vendor type {shown} is not known here; set extensions.optional to true if it may be ignored")
        }
        _ => format!("the type {shown} is not part of the protocol; send one such as session.ping or job.submit"),
    })
}

fn hello(fields: &Fields<'_>) -> Result<Hello, Error> {
    let (capabilities, empty_agents_list) = capabilities(fields)?;
    let resume = match fields.opt_object("resume")? {
        Some(resume) => Some(Resume {
            session_id: resume.non_empty("session_id", "the session to resume")?.into(),
            ..resume_point(&resume)?
        }),
        None => None,
    };
    Ok(Hello {
        client: Some(peer(&fields.object("client")?)?),
        auth: auth(fields)?,
        capabilities,
        resume,
        empty_agents_list,
    })
}

fn resume_as_hello(head: &Head<'_>, fields: &Fields<'_>) -> Result<Hello, Error> {
    let (capabilities, empty_agents_list) = capabilities(fields)?;
    let client = fields.opt_object("client")?.as_ref().map(peer).transpose()?;
    let session_id = one_id("session_id", head.session_id.as_deref(), fields)?;
    let resume = Some(Resume { session_id, ..resume_point(fields)? });
    Ok(Hello { client, auth: auth(fields)?, capabilities, resume, empty_agents_list })
}

/// A resume block that still lacks its session.
fn resume_point(fields: &Fields<'_>) -> Result<Resume, Error> {
    Ok(Resume {
        session_id: String::new(),
        resume_token: fields.non_empty("resume_token", "the token of the last welcome")?.into(),
        last_event_seq: fields.u64("last_event_seq", 0)?,
    })
}

pub(super) fn peer(fields: &Fields<'_>) -> Result<PeerInfo, Error> {
    Ok(PeerInfo {
        name: fields.non_empty("name", "a name")?.into(),
        version: fields.non_empty("version", "a version")?.into(),
    })
}

fn auth(fields: &Fields<'_>) -> Result<Auth, Error> {
    let unauthenticated = || {
        Error::new(
            ErrorCode::Unauthenticated,
            "payload.auth must hold a bearer token; send {\"scheme\":\"bearer\",\"token\":\"...\"}",
        )
    };
    let auth = fields.opt_object("auth")?.ok_or_else(unauthenticated)?;
    let scheme =
        auth.opt_str("scheme", "\"bearer\"")?.filter(|scheme| scheme == "bearer").ok_or_else(unauthenticated)?;
    let token =
        auth.opt_str("token", "a bearer token")?.filter(|token| !token.is_empty()).ok_or_else(unauthenticated)?;
    Ok(Auth { scheme: scheme.into(), token: token.into() })
}

fn capabilities(fields: &Fields<'_>) -> Result<(ClientCapabilities, bool), Error> {
    let mut read = ClientCapabilities::default();
    let Some(fields) = fields.opt_object("capabilities")? else { return Ok((read, false)) };
    if let Some(encodings) = fields.opt_strings("encodings")? {
        read.encodings = encodings;
    }
    if !read.encodings.iter().any(|encoding| encoding == "json") {
        return Err(Error::invalid(
            "payload.capabilities.encodings must contain \"json\", the only encoding of this protocol; add it or leave the list out",
        ));
    }
    read.features = fields.opt_strings("features")?.unwrap_or_default();
    let no_agents = fields
        .value("agents")
        .is_some_and(|_| fields.opt_list("agents").is_ok_and(|agents| agents.is_some_and(|list| list.is_empty())));
    Ok((read, no_agents))
}

fn list_jobs(fields: &Fields<'_>) -> Result<ListJobs, Error> {
    let filter = match fields.opt_object("filter")? {
        Some(filter) => Some(JobFilter {
            status: filter.opt_strings("status")?,
            agent: owned(filter.opt_str("agent", "\"name\" or \"name@version\"")?),
            created_after: filter.opt_time("created_after")?,
            created_before: filter.opt_time("created_before")?,
        }),
        None => None,
    };
    Ok(ListJobs {
        filter,
        limit: fields.opt_u64("limit", 1)?,
        cursor: owned(fields.opt_str("cursor", "next_cursor of the last page")?),
    })
}

fn submit(fields: &Fields<'_>) -> Result<Submit, Error> {
    if let Some(lease) = fields.opt_object("lease_request")? {
        lease.lists_of_text()?;
    }
    let idempotency_key = owned(fields.opt_non_empty("idempotency_key", "1 to 256 bytes")?);
    if let Some(key) = idempotency_key.as_ref().filter(|key| key.len() > 256) {
        return Err(Error::invalid(format!(
            "payload.idempotency_key must be at most 256 bytes, got {}; send a shorter one",
            key.len()
        )));
    }
    Ok(Submit {
        agent: fields.non_empty("agent", "\"name\" or \"name@version\"")?.into(),
        input: fields.raw("input").map_or_else(RawJson::null, RawJson::from_raw),
        lease_request: object(fields, "lease_request")?.unwrap_or_else(RawJson::empty_object),
        lease_constraints: lease_constraints(fields, Timestamp::parse_utc)?,
        idempotency_key,
        max_runtime_sec: fields.opt_u64("max_runtime_sec", 1)?,
        parent_job_id: owned(fields.opt_non_empty("parent_job_id", "a job id")?),
        delegate_id: owned(fields.opt_non_empty("delegate_id", "the id of the delegation")?),
    })
}
