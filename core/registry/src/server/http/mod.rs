//! The HTTP interface: one file per area, one layer around all of it.

#![allow(clippy::result_large_err, reason = "a problem is made once per refused request, and moved a few times")]

mod access;
mod agents;
mod input;
mod login;
pub(crate) mod outer;
mod public;
pub(crate) mod reply;
pub(crate) mod router;
pub(crate) mod system;
mod tokens;
