//! A fixed table of tokens.

use std::future::ready;

use subtle::ConstantTimeEq;

use super::{Verifier, VerifyFuture, unauthenticated};

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
        let verdict = self.find(token).map(Into::into).ok_or_else(unauthenticated);
        Box::pin(ready(verdict))
    }
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
    /// Where a token differs must not show in how long its refusal takes: an early end would be thousands of times faster.
    ///
    /// Rules
    #[test]
    fn a_token_that_differs_at_once_takes_as_long_as_one_that_differs_at_the_end() {
        let known = "x".repeat(1 << 20);
        let verifier = StaticBearerVerifier::new([(known.as_str(), "me@example.com")]);
        let (mut early, mut late) = (known.clone(), known);
        early.replace_range(..1, "y");
        late.replace_range(late.len() - 1.., "y");
        // The best of several is what nothing else on the machine has slowed.
        let time = |token: &str| {
            let once = |_| {
                let begun = std::time::Instant::now();
                assert_eq!(verifier.find(token), None);
                begun.elapsed()
            };
            (0..5).map(once).min().unwrap_or_default()
        };
        let (early, late) = (time(&early), time(&late));
        assert!(early * 4 > late && late * 4 > early, "{early:?} and {late:?}");
    }
}
