//! A runtime: hosts agents and serves sessions.

use std::ffi::c_char;
use std::slice;
use std::time::Duration;

use arcp_bridge::{AgentOptions, Runtime, RuntimeOptions, VerifierChoice};

use crate::boundary::{Out, free, guard, optional_text, reference, text};
use crate::core::arcp_core;
use crate::error::{arcp_error, arcp_result};
use crate::port::arcp_port;
use crate::transport::{arcp_listener, arcp_transport};

/// Hosts agents and serves sessions.
pub struct arcp_runtime {
    runtime: Runtime,
}

/// A token and whose it is.
#[repr(C)]
pub struct arcp_token {
    /// The secret a client shows.
    pub token: *const c_char,
    /// Who it belongs to.
    pub principal: *const c_char,
}

/// Makes a runtime without agents that knows `count` tokens; with none it lets nobody in. `options` is a JSON object:
/// `name` and `version` of your program (required), `features` (list), `heartbeat_interval_sec` (30; 0 for none),
/// `resume_window_sec` (600), `retention_sec` (600), `idempotency_ttl_sec` (86400), `cancel_grace_sec` (30),
/// `lease_expiry_grace_sec` (1), `max_concurrent_jobs` (100), `max_waiting_jobs` (1000), `cancel_policy` (`session` or
/// `principal`; `session`), `wire_profile` (`auto`, `draft` or `py-1.1`; `auto`), `result_chunk_cap` (1 MiB, of one chunk of
/// a result), `result_cap` (256 MiB, of a result in chunks), `inline_result_cap` (1 MiB, of a result that is sent whole),
/// `db` (path of a SQLite file that keeps sessions, jobs and events; `memory`), `synchronous` (`normal` survives the
/// process, `full` a power loss too; `normal`), `db_key_file` (path of a file with the key that encrypts what `db` keeps:
/// 32 bytes as they are, in hexadecimal or in Base64, readable by this user alone).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_runtime_new(
    core: *const arcp_core,
    options: *const c_char,
    tokens: *const arcp_token,
    count: usize,
    runtime: *mut *mut arcp_runtime,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules; `tokens` is an array of `count`.
    unsafe {
        guard(error, || {
            let out = Out::new(runtime, "runtime")?;
            let pairs = if count == 0 { &[] } else { slice::from_raw_parts(reference(tokens, "tokens")?, count) };
            let table = pairs
                .iter()
                .map(|pair| Ok((text(pair.token, "token")?.to_owned(), text(pair.principal, "principal")?.to_owned())))
                .collect::<Result<_, arcp_error>>()?;
            out.give(arcp_runtime::new(core, options, VerifierChoice::Static(table))?);
            Ok(())
        })
    }
}

/// Makes a runtime without agents that asks you about each token, by `ARCP_ITEM_VERIFY` on `port`. `options` as in
/// `arcp_runtime_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_runtime_with_verifier_new(
    core: *const arcp_core,
    options: *const c_char,
    port: *const arcp_port,
    runtime: *mut *mut arcp_runtime,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = Out::new(runtime, "runtime")?;
            let verifier = VerifierChoice::Host(reference(port, "port")?.bridge().clone());
            out.give(arcp_runtime::new(core, options, verifier)?);
            Ok(())
        })
    }
}

/// Makes a runtime without agents that takes signed tokens (JWT). `options` as in `arcp_runtime_new`. `jwt` is a JSON
/// object with exactly one of `secret` (at least 32 bytes), `public_key_pem` and `jwks_url` (`https`, or `http` on this
/// machine), and, optionally, `ca_pem` (certificates to trust for `jwks_url` besides the platform's), `audience` (one or a
/// list; without it a token must name none), `issuer`, `leeway_sec` (30), `principal_claim` (`sub`), `algorithms` (list; all
/// the keys allow).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_runtime_with_jwt_new(
    core: *const arcp_core,
    options: *const c_char,
    jwt: *const c_char,
    runtime: *mut *mut arcp_runtime,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = Out::new(runtime, "runtime")?;
            let verifier = VerifierChoice::Jwt(text(jwt, "jwt")?.to_owned());
            out.give(arcp_runtime::new(core, options, verifier)?);
            Ok(())
        })
    }
}

impl arcp_runtime {
    /// # Safety
    /// The header's rules.
    unsafe fn new(
        core: *const arcp_core,
        options: *const c_char,
        verifier: VerifierChoice,
    ) -> Result<Self, arcp_error> {
        // SAFETY: the caller's promise.
        let (core, options) = unsafe { (reference(core, "core")?, text(options, "options")?) };
        Ok(arcp_runtime { runtime: Runtime::new(&core.core, RuntimeOptions::from_json(options)?, verifier)? })
    }
}

/// Adds an agent, or replaces it: each of its jobs arrives as `ARCP_ITEM_INVOKE` on `port`. `version` may be NULL; the
/// first version of a name is its default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_runtime_register_agent(
    runtime: *const arcp_runtime,
    port: *const arcp_port,
    name: *const c_char,
    version: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (runtime, port) = (reference(runtime, "runtime")?, reference(port, "port")?);
            let (name, version) = (text(name, "name")?, optional_text(version, "version")?);
            Ok(runtime.runtime.register_agent(port.bridge(), name, version, false)?)
        })
    }
}

/// Adds an agent as `arcp_runtime_register_agent`. `options` is a JSON object or NULL: `restartable` (false; true runs a
/// job that died with an earlier process over the same `db` again, under its id, unless a chunk of its result was sent).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_runtime_register_agent_with(
    runtime: *const arcp_runtime,
    port: *const arcp_port,
    name: *const c_char,
    version: *const c_char,
    options: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (runtime, port) = (reference(runtime, "runtime")?, reference(port, "port")?);
            let (name, version) = (text(name, "name")?, optional_text(version, "version")?);
            let options = AgentOptions::from_json(optional_text(options, "options")?.unwrap_or("{}"))?;
            Ok(runtime.runtime.register_agent(port.bridge(), name, version, options.restartable)?)
        })
    }
}

/// Sets the version a bare name means.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_runtime_set_default_agent_version(
    runtime: *const arcp_runtime,
    name: *const c_char,
    version: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (name, version) = (text(name, "name")?, text(version, "version")?);
            Ok(reference(runtime, "runtime")?.runtime.set_default_agent_version(name, version)?)
        })
    }
}

/// The agents as JSON, for `arcp_string_free`: a list of `{name, versions, default?}`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_runtime_agent_inventory(
    runtime: *const arcp_runtime,
    inventory: *mut *mut c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = Out::new(inventory, "inventory")?;
            out.give_text(reference(runtime, "runtime")?.runtime.agent_inventory());
            Ok(())
        })
    }
}

/// Serves one whole session; completes with nothing when it has ended. The transport is used up, and is still yours to
/// free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_runtime_accept(
    runtime: *const arcp_runtime,
    port: *const arcp_port,
    call: u64,
    transport: *const arcp_transport,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (runtime, port) = (reference(runtime, "runtime")?, reference(port, "port")?);
            Ok(runtime.runtime.accept(port.bridge(), call, &reference(transport, "transport")?.transport)?)
        })
    }
}

/// Serves every connection of a listener; completes with nothing when the listener is closed. Jobs that died with an
/// earlier process over the same `db` are settled now, so register agents before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_runtime_serve(
    runtime: *const arcp_runtime,
    port: *const arcp_port,
    call: u64,
    listener: *const arcp_listener,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (runtime, port) = (reference(runtime, "runtime")?, reference(port, "port")?);
            Ok(runtime.runtime.serve(port.bridge(), call, &reference(listener, "listener")?.listener)?)
        })
    }
}

/// Cancels every job, gives them up to `grace_ms`, ends every session; completes with nothing then. `reason` may be NULL
/// (`runtime.close`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_runtime_shutdown(
    runtime: *const arcp_runtime,
    port: *const arcp_port,
    call: u64,
    reason: *const c_char,
    grace_ms: u32,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (runtime, port) = (reference(runtime, "runtime")?, reference(port, "port")?);
            let reason = optional_text(reason, "reason")?.unwrap_or("runtime.close").to_owned();
            let grace = Duration::from_millis(grace_ms.into());
            Ok(runtime.runtime.shutdown(port.bridge(), call, reason, grace)?)
        })
    }
}

/// Frees a runtime. Sessions under way go on until `arcp_runtime_shutdown` or the core's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_runtime_free(runtime: *mut arcp_runtime) {
    // SAFETY: the header's rules.
    unsafe { free(runtime) };
}
