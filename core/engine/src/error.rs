//! What can go wrong on this side of the wire.

use arcp_proto::Error as ProtocolError;

/// A protocol error keeps its code; a local failure is never dressed as one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The peer refused, or the job ended badly.
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    /// The session, handle or transport was closed on this side, or ended with its session.
    #[error("closed: {0}")]
    Closed(String),
    /// A bounded wait ran out.
    #[error("timed out: {0}")]
    Timeout(String),
    /// There is no connection, or it was lost.
    #[error("transport: {0}")]
    Transport(String),
}

impl Error {
    /// The protocol error, if it is one.
    pub fn protocol(&self) -> Option<&ProtocolError> {
        match self {
            Error::Protocol(error) => Some(error),
            _ => None,
        }
    }
}

impl From<TransportError> for Error {
    fn from(error: TransportError) -> Self {
        Error::Transport(error.0)
    }
}

/// Why a transport failed, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub String);

impl TransportError {
    pub(crate) fn new(error: impl std::fmt::Display) -> Self {
        TransportError(error.to_string())
    }
}
