//! Who may do what: tokens, sessions, passwords, keys, waits after failures.

pub mod lockout;
pub mod passwords;
pub mod sessions;
pub mod tokens;
