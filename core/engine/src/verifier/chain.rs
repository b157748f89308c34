//! Several verifiers in turn.

use std::sync::Arc;

use arcp_proto::ErrorCode;

use super::{Verifier, VerifyFuture, unauthenticated};

/// Asks one verifier after another; the first that knows the token says whose it is. When none does, the failure of
/// one is told before `UNAUTHENTICATED`: it might have known the token.
#[derive(Clone)]
pub struct ChainVerifier {
    links: Vec<Arc<dyn Verifier>>,
}

impl ChainVerifier {
    /// A verifier that asks these, in this order. Without any, every token is wrong.
    pub fn new(links: impl IntoIterator<Item = Arc<dyn Verifier>>) -> Self {
        ChainVerifier { links: links.into_iter().collect() }
    }
}

impl std::fmt::Debug for ChainVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainVerifier").field("links", &self.links.len()).finish()
    }
}

impl Verifier for ChainVerifier {
    fn verify(&self, token: &str) -> VerifyFuture {
        let (links, token) = (self.links.clone(), token.to_owned());
        Box::pin(async move {
            let mut verdict = unauthenticated();
            for link in links {
                match link.verify(&token).await {
                    Ok(principal) => return Ok(principal),
                    Err(error) if verdict.code == ErrorCode::Unauthenticated => verdict = error,
                    Err(_) => {}
                }
            }
            Err(verdict)
        })
    }
}
