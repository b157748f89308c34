//! Who a token is, as far as a socket must know.

use std::fmt;

use futures_util::future::BoxFuture;

/// The role in a valid token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May use neither the agent nor the dashboard socket.
    User,
    /// An agent, with a temporary token too (REG-332).
    Agent,
    /// An administrator.
    Admin,
}

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What it may do.
    pub role: Role,
    /// The agent or user it names; shown in the dashboard's log.
    pub name: String,
}

/// Checks tokens. Sockets skip the fingerprint and the session (REG-134).
pub trait Gate: Send + Sync {
    /// The identity in a token that is genuine and not expired.
    fn identify<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Option<Identity>>;
}

impl fmt::Debug for dyn Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}
