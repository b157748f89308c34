//! A client: one session with a runtime.

use std::ffi::c_char;

use arcp_bridge::{Client, ClientOptions, Core, TokenChoice};

use crate::boundary::{Out, free, guard, optional_text, quietly, reference, text};
use crate::core::arcp_core;
use crate::error::{arcp_error, arcp_result};
use crate::job::arcp_job;
use crate::port::arcp_port;
use crate::transport::arcp_transport;

const CANCEL: &str = "client.cancel";

/// One session with a runtime.
pub struct arcp_client {
    core: Core,
    client: Client,
}

/// Makes a client that is not connected. `options` is a JSON object: `name` and `version` of your program (required),
/// `features` (list), `handshake_timeout_sec` (5), `request_timeout_sec` (30), `auto_ack` (true), `close_style` (`bye` or
/// `close`; `bye`), `reconnect` (true: a lost link is healed where the transport came from a URL; false; or an object with
/// `initial_sec` (0.1), `max_sec` (5) and `give_up_after_sec` (900; 0 for never)), `max_result_bytes` (64 MiB, of a streamed
/// result put together).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_new(
    core: *const arcp_core,
    options: *const c_char,
    client: *mut *mut arcp_client,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = Out::new(client, "client")?;
            let options = ClientOptions::from_json(text(options, "options")?)?;
            let core = reference(core, "core")?.core.clone();
            out.give(arcp_client { client: Client::new(&core, options)?, core });
            Ok(())
        })
    }
}

/// Shakes hands; completes with the welcome as JSON (`session_id`, `runtime`, `capabilities`, ...; its `resume_token` is
/// a secret). The transport is used up, and is still yours to free. A client connects once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_connect(
    client: *const arcp_client,
    port: *const arcp_port,
    call: u64,
    transport: *const arcp_transport,
    token: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (client, port) = (reference(client, "client")?, reference(port, "port")?);
            let (transport, token) = (reference(transport, "transport")?, text(token, "token")?);
            Ok(client.client.connect(
                port.bridge(),
                call,
                &transport.transport,
                TokenChoice::Fixed(token.to_owned()),
                None,
            )?)
        })
    }
}

/// Connects as `arcp_client_connect`, with a token that is asked for, by `ARCP_ITEM_TOKEN` on `tokens`, at the first
/// connection and at each one that heals a lost link. `tokens` may be the port of the call, if you do not block for this
/// call alone. `resume` is as in `arcp_client_connect_resuming`, or NULL for a new session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_connect_asking(
    client: *const arcp_client,
    port: *const arcp_port,
    call: u64,
    transport: *const arcp_transport,
    tokens: *const arcp_port,
    resume: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (client, port) = (reference(client, "client")?, reference(port, "port")?);
            let (transport, tokens) = (reference(transport, "transport")?, reference(tokens, "tokens")?);
            let (token, resume) = (TokenChoice::Host(tokens.bridge().clone()), optional_text(resume, "resume")?);
            Ok(client.client.connect(port.bridge(), call, &transport.transport, token, resume)?)
        })
    }
}

/// Connects as `arcp_client_connect`, and takes up a session of an earlier client, of this process or another. `resume` is
/// a JSON object, all of it required: `session_id` and `resume_token` of that client's last welcome, and `last_event_seq`,
/// the highest it processed (`arcp_client_latest_event_seq`). What came since then comes again: see `arcp_client_job`.
/// Completes with `ARCP_RESUME_WINDOW_EXPIRED` when the session is gone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_connect_resuming(
    client: *const arcp_client,
    port: *const arcp_port,
    call: u64,
    transport: *const arcp_transport,
    token: *const c_char,
    resume: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (client, port) = (reference(client, "client")?, reference(port, "port")?);
            let (transport, token) = (reference(transport, "transport")?, text(token, "token")?);
            let (token, resume) = (TokenChoice::Fixed(token.to_owned()), text(resume, "resume")?);
            Ok(client.client.connect(port.bridge(), call, &transport.transport, token, Some(resume))?)
        })
    }
}

/// Gives a view of a job of a session that was taken up, with the events since `last_event_seq`. Fails with
/// `ARCP_INVALID_REQUEST` when no session was taken up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_job(
    client: *const arcp_client,
    job_id: *const c_char,
    job: *mut *mut arcp_job,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = Out::new(job, "job")?;
            let (client, job_id) = (reference(client, "client")?, text(job_id, "job_id")?);
            out.give(arcp_job::new(client.core.clone(), client.client.job(job_id)?));
            Ok(())
        })
    }
}

/// The ids of the jobs this session knows of, as a JSON list for `arcp_string_free`: those that have not ended, and, of a
/// session that was taken up, those something came for that no `arcp_client_job` has asked for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_jobs(
    client: *const arcp_client,
    jobs: *mut *mut c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = Out::new(jobs, "jobs")?;
            out.give_text(serde_json::Value::from(reference(client, "client")?.client.jobs()).to_string());
            Ok(())
        })
    }
}

/// Asks for one page of the principal's jobs; completes with JSON: `jobs` (a list of `job_id`, `agent`, `status` and so
/// on), and `next_cursor` when more follow. `request` is a JSON object or NULL: `filter` (object: `status` (list), `agent`,
/// `created_after`, `created_before`), `limit`, `cursor`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_list_jobs(
    client: *const arcp_client,
    port: *const arcp_port,
    call: u64,
    request: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (client, port) = (reference(client, "client")?, reference(port, "port")?);
            let request = optional_text(request, "request")?.unwrap_or("{}");
            Ok(client.client.list_jobs(port.bridge(), call, request)?)
        })
    }
}

/// Whether a feature was negotiated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_has_feature(client: *const arcp_client, name: *const c_char) -> bool {
    // SAFETY: the header's rules.
    quietly(false, || unsafe {
        let (Ok(client), Ok(name)) = (reference(client, "client"), text(name, "name")) else { return false };
        client.client.has_feature(name)
    })
}

/// What was negotiated, in this client's order, as a JSON list for `arcp_string_free`; empty before the welcome.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_features(
    client: *const arcp_client,
    features: *mut *mut c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = Out::new(features, "features")?;
            let names = reference(client, "client")?.client.negotiated_features();
            out.give_text(serde_json::Value::from(names).to_string());
            Ok(())
        })
    }
}

/// The highest `event_seq` received; 0 before the first event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_latest_event_seq(client: *const arcp_client) -> u64 {
    // SAFETY: the header's rules.
    quietly(0, || unsafe { client.as_ref() }.map_or(0, |client| client.client.latest_event_seq()))
}

/// Submits a job; completes with `job` once it is accepted. `request` is a JSON object: `agent` (`name` or
/// `name@version`, required), `input` (any JSON), `lease_request` (object), `expires_at` (RFC 3339),
/// `idempotency_key`, `max_runtime_sec`, `parent_job_id`, `trace_id`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_submit(
    client: *const arcp_client,
    port: *const arcp_port,
    call: u64,
    request: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (client, port) = (reference(client, "client")?, reference(port, "port")?);
            Ok(client.client.submit(port.bridge(), call, text(request, "request")?)?)
        })
    }
}

/// Follows a job of the same principal; completes with `job`. `request` is a JSON object: `job_id` (required),
/// `history` (false), `from_event_seq`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_subscribe(
    client: *const arcp_client,
    port: *const arcp_port,
    call: u64,
    request: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (client, port) = (reference(client, "client")?, reference(port, "port")?);
            Ok(client.client.subscribe(port.bridge(), call, text(request, "request")?)?)
        })
    }
}

/// Stops following a job. Does nothing when that was not negotiated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_unsubscribe(
    client: *const arcp_client,
    job_id: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            reference(client, "client")?.client.unsubscribe(text(job_id, "job_id")?);
            Ok(())
        })
    }
}

/// Asks to cancel a job and returns at once; `reason` may be NULL (`client.cancel`). Whether it was, its result tells.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_cancel_job(
    client: *const arcp_client,
    job_id: *const c_char,
    reason: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (job_id, reason) = (text(job_id, "job_id")?, optional_text(reason, "reason")?);
            Ok(reference(client, "client")?.client.cancel_job(job_id, reason.unwrap_or(CANCEL))?)
        })
    }
}

/// Asks to cancel a job; completes when the runtime has answered, with JSON: the state of a job that had already ended,
/// else `null`. `reason` may be NULL (`client.cancel`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_cancel_job_acknowledged(
    client: *const arcp_client,
    port: *const arcp_port,
    call: u64,
    job_id: *const c_char,
    reason: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (client, port) = (reference(client, "client")?, reference(port, "port")?);
            let (job_id, reason) = (text(job_id, "job_id")?, optional_text(reason, "reason")?);
            let reason = reason.unwrap_or(CANCEL).to_owned();
            Ok(client.client.cancel_job_acknowledged(port.bridge(), call, job_id.to_owned(), reason)?)
        })
    }
}

/// Acknowledges events by hand, with `auto_ack` off. Does nothing when that was not negotiated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_ack(client: *const arcp_client, last_processed_seq: u64) {
    quietly((), || {
        // SAFETY: the header's rules.
        if let Some(client) = unsafe { client.as_ref() } {
            client.client.ack(last_processed_seq);
        }
    });
}

/// Ends the session politely; completes within bounded time, with nothing. `reason` may be NULL (`client.close`). Closing
/// twice is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_close(
    client: *const arcp_client,
    port: *const arcp_port,
    call: u64,
    reason: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (client, port) = (reference(client, "client")?, reference(port, "port")?);
            let reason = optional_text(reason, "reason")?.unwrap_or("client.close").to_owned();
            Ok(client.client.close(port.bridge(), call, reason)?)
        })
    }
}

/// Waits for the session's end; completes with the reason, as an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_closed(
    client: *const arcp_client,
    port: *const arcp_port,
    call: u64,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (client, port) = (reference(client, "client")?, reference(port, "port")?);
            Ok(client.client.closed(port.bridge(), call)?)
        })
    }
}

/// Frees a client. A session that was not closed stays open until the peer or the core ends it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_client_free(client: *mut arcp_client) {
    // SAFETY: the header's rules.
    unsafe { free(client) };
}
