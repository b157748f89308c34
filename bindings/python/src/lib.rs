//! The module `arcp._native`: the bridge as Python objects. The package in `python/arcp` gives it its public face.
//!
//! Calls that take time are given a [`port::Port`] and a number; the port's `drain` hands their outcome back in batches.
//! Structured arguments and answers cross as JSON text. No call waits while it holds the interpreter.

mod cli;
mod client;
mod context;
mod core;
mod error;
mod event;
mod fairness;
mod json;
mod port;
mod registry;
mod runtime;
mod transport;

use pyo3::prelude::*;

use crate::error::OrRaise as _;

/// The bridge of `arcp`; private.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::cli::{report_failure, run_cli};
    #[pymodule_export]
    use crate::client::{Client, Job, TokenRequest};
    #[pymodule_export]
    use crate::context::{Invocation, JobContext};
    #[pymodule_export]
    use crate::core::{after_fork, shutdown};
    #[pymodule_export]
    use crate::event::EventData;
    #[pymodule_export]
    use crate::json::encode;
    #[pymodule_export]
    use crate::port::Port;
    #[pymodule_export]
    use crate::registry::{RegistryHttp, RegistryServer, RegistrySocket, registry_check};
    #[pymodule_export]
    use crate::runtime::{HostRequest, Runtime, TokenVerifier, VerifyRequest};
    #[pymodule_export]
    use crate::transport::{Frames, Listener, TransportHandle};
    #[pymodule_export]
    use crate::{call_function, log_to, read_event_log};

    #[pymodule_export]
    const IMPL_VERSION: &str = arcp_bridge::IMPL_VERSION;
    #[pymodule_export]
    const PROTOCOL_VERSION: &str = arcp_bridge::PROTOCOL_VERSION;
}

/// A pure function of the protocol by name: JSON text in, JSON text out.
#[pyfunction]
fn call_function(py: Python<'_>, function: &str, arguments: &str) -> PyResult<String> {
    arcp_bridge::call_function(function, arguments).or_raise(py)
}

/// What a database keeps of a session after a number, as JSON texts, and the last number given.
#[pyfunction]
fn read_event_log(
    py: Python<'_>,
    db: &str,
    key_file: Option<&str>,
    session_id: &str,
    after_seq: u64,
) -> PyResult<(Vec<String>, u64)> {
    py.detach(|| arcp_bridge::read_event_log(db, key_file, session_id, after_seq)).or_raise(py)
}

/// Sends the core's logs from `level` (as `logging` counts) on to `port`.
#[pyfunction]
fn log_to(py: Python<'_>, port: &port::Port, level: u32) -> PyResult<()> {
    let level = match level {
        ..10 => arcp_bridge::LogLevel::Trace,
        10..20 => arcp_bridge::LogLevel::Debug,
        20..30 => arcp_bridge::LogLevel::Info,
        30..40 => arcp_bridge::LogLevel::Warn,
        40.. => arcp_bridge::LogLevel::Error,
    };
    core::core(py)?.log_to(port.bridge(py)?, level);
    Ok(())
}
