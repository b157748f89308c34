//! The HTTP interface: one file per area, one layer around all of it.

pub(crate) mod input;
pub(crate) mod outer;
pub(crate) mod reply;
