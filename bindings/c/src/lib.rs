//! ARCP for C. The rules every function follows (results, ownership, threads) are at the head of `include/arcp.h`, whose
//! text is in `cbindgen.toml`; the comments of this crate's public items are the rest of that header.
#![allow(unsafe_code, reason = "C hands over raw pointers")]
#![allow(non_camel_case_types, reason = "the names are those of the header")]
#![allow(clippy::missing_safety_doc, reason = "said once for all functions at the head of the header")]

// The order of the header.
pub mod error;

pub mod core;

pub mod port;

pub mod item;

pub mod transport;

pub mod client;

pub mod job;

pub mod runtime;

pub mod invocation;

pub mod result_writer;

pub mod delegation;

pub mod token;

pub mod registry;

pub mod functions;

pub mod boundary;

/// What the header promises about threads.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<client::arcp_client>();
    shared::<core::arcp_core>();
    shared::<invocation::arcp_invocation>();
    shared::<invocation::arcp_verification>();
    shared::<job::arcp_job>();
    shared::<port::arcp_port>();
    shared::<registry::arcp_registry>();
    shared::<runtime::arcp_runtime>();
    shared::<token::arcp_token_request>();
    shared::<transport::arcp_listener>();
    shared::<transport::arcp_transport>();
};
