//! The registry half of ARCP: agents register, are watched, found and searched.

pub mod client;
pub mod directory;
pub mod model;
pub mod problem;
pub mod search;
pub mod server;
pub mod service;
