//! A copy of what sessions are sent, for a log of the host's own (D-33).

use std::sync::Arc;

use arcp_proto::machine::frame::Frame;

/// What a mirror is told, in the order in which it was decided.
#[derive(Debug)]
pub enum Mirrored {
    /// A numbered message of a session, once it is stored: what its client gets, or would get, without any secret.
    Append {
        /// Whose.
        session_id: Arc<str>,
        /// Its number there.
        event_seq: u64,
        /// The message.
        frame: Frame,
    },
    /// A session's client has everything up to this number.
    Release {
        /// Which session.
        session_id: Arc<str>,
        /// The number.
        through: u64,
    },
    /// A session is forgotten.
    Drop(Arc<str>),
}

/// Takes copies. It is told under the runtime's lock, so it must only put aside what it is given.
pub trait Mirror: Send + Sync + 'static {
    /// One more.
    fn push(&self, mirrored: Mirrored);
}
