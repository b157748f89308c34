//! Who a bearer token belongs to.

use std::future::{Future, ready};
use std::pin::Pin;

use arcp_proto::{Error, ErrorCode};
use subtle::ConstantTimeEq;

/// A verifier's answer: the principal, or the error to send.
pub type VerifyFuture = Pin<Box<dyn Future<Output = Result<String, Error>> + Send>>;

/// Says which principal a token belongs to. The runtime bounds its time.
pub trait Verifier: Send + Sync + 'static {
    /// The principal of `token`; `UNAUTHENTICATED` for a wrong one, `INTERNAL_ERROR` for the verifier's own failures.
    fn verify(&self, token: &str) -> VerifyFuture;
}

/// A fixed table of tokens.
#[derive(Clone)]
pub struct StaticBearerVerifier {
    principals: Vec<(String, String)>,
}

impl StaticBearerVerifier {
    /// A verifier for these (token, principal) pairs.
    pub fn new<T: Into<String>, P: Into<String>>(tokens: impl IntoIterator<Item = (T, P)>) -> Self {
        let principals = tokens.into_iter().map(|(token, principal)| (token.into(), principal.into())).collect();
        StaticBearerVerifier { principals }
    }

    /// The principal of `token`. Every entry is compared, in constant time each.
    fn find(&self, token: &str) -> Option<&str> {
        self.principals.iter().fold(None, |found, (known, principal)| {
            if bool::from(known.as_bytes().ct_eq(token.as_bytes())) { Some(principal.as_str()) } else { found }
        })
    }
}

impl std::fmt::Debug for StaticBearerVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticBearerVerifier").field("tokens", &self.principals.len()).finish()
    }
}

impl Verifier for StaticBearerVerifier {
    fn verify(&self, token: &str) -> VerifyFuture {
        let verdict = self.find(token).map(str::to_owned).ok_or_else(unauthenticated);
        Box::pin(ready(verdict))
    }
}

/// The one answer to every wrong token.
pub(crate) fn unauthenticated() -> Error {
    Error::new(ErrorCode::Unauthenticated, "the bearer token is not valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_token_names_its_principal() {
        let verifier = StaticBearerVerifier::new([("tok", "me@example.com"), ("tok-2", "you@example.com")]);
        assert_eq!(verifier.find("tok"), Some("me@example.com"));
        assert_eq!(verifier.find("tok-2"), Some("you@example.com"));
        assert_eq!(verifier.find("to"), None);
        assert_eq!(verifier.find(""), None);
        assert!(!format!("{verifier:?}").contains("tok-2"));
    }
}
