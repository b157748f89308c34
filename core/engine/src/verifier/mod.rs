//! Who a bearer token belongs to.

mod chain;
mod jwks;
mod jwt;
mod static_bearer;

use std::future::Future;
use std::pin::Pin;

use arcp_proto::machine::session::Identity;
use arcp_proto::{Error, ErrorCode};

pub use chain::ChainVerifier;
pub use jwks::JwksOptions;
pub use jwt::{JwtKey, JwtOptions, JwtVerifier};
pub use static_bearer::StaticBearerVerifier;

/// A verifier's answer: whose the token is, or the error to send.
pub type VerifyFuture = Pin<Box<dyn Future<Output = Result<Identity, Error>> + Send>>;

/// Says which principal a token belongs to, and what the token allows. The runtime bounds its time.
pub trait Verifier: Send + Sync + 'static {
    /// Whose `token` is; `UNAUTHENTICATED` for a wrong one, `INTERNAL_ERROR` for the verifier's own failures.
    fn verify(&self, token: &str) -> VerifyFuture;
}

/// Why a verifier cannot be made: a sentence that names the setting and the remedy, without any secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct VerifierError(pub String);

/// The one answer to every wrong token.
pub(crate) fn unauthenticated() -> Error {
    Error::new(ErrorCode::Unauthenticated, "the bearer token is not valid")
}
