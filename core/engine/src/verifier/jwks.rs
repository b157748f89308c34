//! The public keys of an issuer, kept at a URL and changed there from time to time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Shared;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use parking_lot::Mutex;
use reqwest::{Client, Url, redirect};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::VerifierError;
use super::jwt::{Key, SHORTEST_SECRET};
use crate::span::say;
use crate::transport::{is_loopback, tls};

/// Keys older than this are fetched anew.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// At most one fetch in this time, whatever tokens come.
const PAUSE: Duration = Duration::from_secs(10);
/// Keys are used so long while newer ones cannot be had.
const STALE: Duration = Duration::from_secs(3600);
/// A token whose key is known waits no longer for newer keys.
const PATIENCE: Duration = Duration::from_secs(1);
/// One fetch, from name lookup to the last byte.
const FETCH: Duration = Duration::from_secs(5);
/// The largest key set.
const LARGEST: usize = 1 << 20;
/// So many keys are kept: a token without `kid` is tried against all.
const MOST_KEYS: usize = 100;

/// A JSON Web Key Set at a URL. It is fetched when first needed, again when it is 5 minutes old or a token names a key
/// it does not hold, but at most once in 10 s. While that fails, keys are used until they are an hour old.
#[derive(Clone)]
pub struct JwksOptions {
    /// `https`, or `http` on this machine. A redirect is not followed.
    pub url: String,
    /// PEM text of certificates to trust besides the platform's.
    pub ca_pem: Option<Vec<u8>>,
}

impl JwksOptions {
    /// The key set at this URL, trusting what the platform trusts.
    pub fn new(url: impl Into<String>) -> Self {
        JwksOptions { url: url.into(), ca_pem: None }
    }
}

impl fmt::Debug for JwksOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A user, password or query can be a secret.
        let shown = Url::parse(&self.url).map(|url| shown(&url));
        f.debug_struct("JwksOptions").field("url", &shown.as_deref().unwrap_or("?")).finish_non_exhaustive()
    }
}

/// Scheme, host and port.
fn shown(url: &Url) -> String {
    url.origin().ascii_serialization()
}

type Fetched = Pin<Box<dyn Future<Output = Result<Vec<NamedKey>, String>> + Send>>;
type Fetch = Box<dyn Fn() -> Fetched + Send + Sync>;

#[derive(Clone)]
struct NamedKey {
    kid: Option<String>,
    key: Arc<Key>,
}

/// The cache: one fetch at a time, and nobody waits for it without bound.
pub(super) struct Jwks {
    shown: String,
    fetch: Fetch,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    kept: Option<Kept>,
    attempted: Option<Instant>,
    /// Shared by all who wait for it.
    flight: Option<Shared<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

struct Kept {
    keys: Vec<NamedKey>,
    since: Instant,
}

impl Kept {
    /// The keys a token may be signed with: those it names, or all when it names none.
    fn matching(&self, kid: Option<&str>) -> Vec<Arc<Key>> {
        let named = |key: &&NamedKey| kid.is_none() || key.kid.as_deref() == kid;
        self.keys.iter().filter(named).map(|key| Arc::clone(&key.key)).collect()
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwks").field("url", &self.shown).finish_non_exhaustive()
    }
}

impl Jwks {
    pub(super) fn new(options: JwksOptions) -> Result<Self, VerifierError> {
        let wrong = |why: String| VerifierError(format!("jwks_url {why}"));
        let url = Url::parse(&options.url)
            .map_err(|error| wrong(format!("is not a URL ({error}); use https://host/path")))?;
        let local = url.host_str().is_some_and(|host| is_loopback(host.trim_matches(['[', ']'])));
        match url.scheme() {
            "https" => {}
            "http" if local => {}
            "http" => {
                return Err(wrong("must be https: whoever changes the keys on the way changes who gets in".into()));
            }
            _ => return Err(wrong("must begin with https://".into())),
        }
        let client = client(&options, local).map_err(wrong)?;
        let shown = shown(&url);
        let fetch = move || -> Fetched { Box::pin(fetch(client.clone(), url.clone())) };
        Ok(Jwks::with_fetch(shown, Box::new(fetch)))
    }

    fn with_fetch(shown: String, fetch: Fetch) -> Self {
        Jwks { shown, fetch, state: Arc::default() }
    }

    /// The keys for a token that names this one; none when it is not in the set.
    ///
    /// # Errors
    /// When there is no set, or only one that is too old.
    pub(super) async fn keys(&self, kid: Option<&str>) -> Result<Vec<Arc<Key>>, VerifierError> {
        let (flight, known) = {
            let mut state = self.state.lock();
            let now = Instant::now();
            let usable = state.kept.as_ref().filter(|kept| now - kept.since <= STALE);
            let matching = usable.map(|kept| kept.matching(kid)).unwrap_or_default();
            let fresh = usable.is_some_and(|kept| now - kept.since < REFRESH);
            if fresh && !matching.is_empty() {
                return Ok(matching);
            }
            // A fetch is over long before the pause is, so there is never a second one.
            if state.attempted.is_none_or(|at| now - at >= PAUSE) {
                state.attempted = Some(now);
                state.flight = Some(self.start());
            }
            (state.flight.clone(), !matching.is_empty())
        };
        if let Some(flight) = flight {
            // The fetch goes on without those who stop waiting.
            let patience = if known { PATIENCE } else { FETCH + PATIENCE };
            let _ = timeout(patience, flight).await;
        }
        let state = self.state.lock();
        match state.kept.as_ref().filter(|kept| kept.since.elapsed() <= STALE) {
            Some(kept) => Ok(kept.matching(kid)),
            None => Err(VerifierError(format!("the key set of {} cannot be had", self.shown))),
        }
    }

    /// Fetches in a task of its own, so that nobody's leaving stops it.
    fn start(&self) -> Shared<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let (fetched, state, shown) = ((self.fetch)(), Arc::clone(&self.state), self.shown.clone());
        let task = tokio::spawn(async move {
            let fetched = timeout(FETCH, fetched).await;
            let mut state = state.lock();
            state.flight = None;
            match fetched.unwrap_or_else(|_| Err(format!("no answer within {} s", FETCH.as_secs()))) {
                Ok(keys) => state.kept = Some(Kept { keys, since: Instant::now() }),
                Err(error) => say(|| {
                    tracing::warn!(host = shown, error, "cannot fetch the key set that tokens are verified with")
                }),
            }
        });
        let done: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(task.map(|_| ()));
        done.shared()
    }
}

fn client(options: &JwksOptions, local: bool) -> Result<Client, String> {
    let config = tls::client_config(options.ca_pem.as_deref()).map_err(|error| format!("cannot be used: {error}"))?;
    let mut builder = Client::builder()
        .tls_backend_preconfigured((*config).clone())
        // Elsewhere might be cleartext, or not the issuer.
        .redirect(redirect::Policy::none())
        .timeout(FETCH)
        .pool_max_idle_per_host(1)
        .user_agent(concat!("arcp/", env!("CARGO_PKG_VERSION")));
    if local {
        // No proxy stands between this machine and itself; others come from the environment (D-39).
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| format!("cannot be used: {}", reason(error)))
}

async fn fetch(client: Client, url: Url) -> Result<Vec<NamedKey>, String> {
    let mut answer = client.get(url).header("accept", "application/json").send().await.map_err(reason)?;
    let status = answer.status();
    if status.is_redirection() {
        return Err(format!("the answer is HTTP {status}, and redirects are not followed; use the final URL"));
    }
    if !status.is_success() {
        return Err(format!("the answer is HTTP {status}"));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(reason)? {
        if body.len() + chunk.len() > LARGEST {
            return Err(format!("the answer is over {LARGEST} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    read(&body)
}

/// The whole chain of causes, without the URL.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Keys one by one: those that are of no use here do no harm to the others.
#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

fn read(body: &[u8]) -> Result<Vec<NamedKey>, String> {
    let document: Set = serde_json::from_slice(body)
        .map_err(|_| "the answer is not a JSON Web Key Set, an object with a list \"keys\"".to_owned())?;
    let keys: Vec<_> = document.keys.into_iter().filter_map(usable).take(MOST_KEYS).collect();
    if keys.is_empty() {
        return Err("the key set holds no public key for signatures that is supported".into());
    }
    Ok(keys)
}

/// The keys of a set that its host gives as text.
pub(super) struct Document(Vec<NamedKey>);

impl Document {
    pub(super) fn new(text: &str) -> Result<Self, VerifierError> {
        let wrong = |why: &str| VerifierError(format!("jwks {why}"));
        let document: Set = serde_json::from_str(text)
            .map_err(|_| wrong("is not a JSON Web Key Set; give an object with a list \"keys\""))?;
        let keys: Vec<_> = document.keys.into_iter().filter_map(given).take(MOST_KEYS).collect();
        match keys.is_empty() {
            true => Err(wrong("holds no key for signatures that is supported; secrets have at least 32 bytes")),
            false => Ok(Document(keys)),
        }
    }

    /// What these keys allow.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let mut all: Vec<Algorithm> = Vec::new();
        for algorithm in self.0.iter().flat_map(|named| &named.key.algorithms) {
            if !all.contains(algorithm) {
                all.push(*algorithm);
            }
        }
        all
    }

    /// The keys for a token that names this one, or all for one that names none.
    pub(super) fn matching(&self, kid: Option<&str>) -> Vec<Arc<Key>> {
        let named = |key: &&NamedKey| kid.is_none() || key.kid.as_deref() == kid;
        self.0.iter().filter(named).map(|key| Arc::clone(&key.key)).collect()
    }
}

/// A key the host gives itself: besides public ones a secret, which nobody else can read there.
fn given(value: serde_json::Value) -> Option<NamedKey> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    let AlgorithmParameters::OctetKey(_) = &jwk.algorithm else { return usable(value) };
    let mut algorithms = AlgorithmFamily::Hmac.algorithms().to_vec();
    if let Some(pinned) = jwk.common.key_algorithm {
        let pinned = Algorithm::try_from(pinned).ok()?;
        algorithms.retain(|algorithm| *algorithm == pinned);
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let long_enough = key.try_get_as_bytes().is_ok_and(|secret| secret.len() >= SHORTEST_SECRET);
    (long_enough && !algorithms.is_empty())
        .then(|| NamedKey { kid: jwk.common.key_id, key: Arc::new(Key { key, algorithms }) })
}

/// A public key for signatures, with what it may verify. Its `alg` and curve settle that, never a token.
fn usable(value: serde_json::Value) -> Option<NamedKey> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let common = &jwk.common;
    if common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    if common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
        return None;
    }
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
        // Above all no secrets: whoever can read the set could sign.
        _ => return None,
    };
    if let Some(pinned) = common.key_algorithm {
        let pinned = Algorithm::try_from(pinned).ok()?;
        algorithms.retain(|algorithm| *algorithm == pinned);
    }
    if algorithms.is_empty() {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some(NamedKey { kid: jwk.common.key_id, key: Arc::new(Key { key, algorithms }) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;
    use tokio::time::{advance, sleep};

    use super::*;

    /// An issuer in virtual time: its answer, how long it takes, and how often it was asked.
    #[derive(Default)]
    struct Issuer {
        kids: Mutex<Option<Vec<&'static str>>>,
        takes: Mutex<Duration>,
        asked: AtomicUsize,
    }

    impl Issuer {
        fn offers(&self, kids: &[&'static str]) {
            *self.kids.lock() = Some(kids.to_vec());
        }

        fn fails(&self) {
            *self.kids.lock() = None;
        }

        fn takes(&self, time: Duration) {
            *self.takes.lock() = time;
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    fn key(kid: &str) -> NamedKey {
        let key = Key { key: DecodingKey::from_secret(b""), algorithms: Vec::new() };
        NamedKey { kid: Some(kid.to_owned()), key: Arc::new(key) }
    }

    fn cache() -> (Arc<Issuer>, Arc<Jwks>) {
        let issuer = Arc::new(Issuer::default());
        let asked = Arc::clone(&issuer);
        let fetch = move || -> Fetched {
            asked.asked.fetch_add(1, Ordering::SeqCst);
            let issuer = Arc::clone(&asked);
            Box::pin(async move {
                let takes = *issuer.takes.lock();
                sleep(takes).await;
                let kids = issuer.kids.lock().clone();
                kids.map(|kids| kids.into_iter().map(key).collect()).ok_or_else(|| "down".to_owned())
            })
        };
        (issuer, Arc::new(Jwks::with_fetch("https://issuer".into(), Box::new(fetch))))
    }

    async fn found(jwks: &Jwks, kid: &str) -> Option<usize> {
        jwks.keys(Some(kid)).await.ok().map(|keys| keys.len())
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_fetched_once_for_all_who_wait_and_anew_after_five_minutes() {
        let (issuer, jwks) = cache();
        issuer.offers(&["a"]);
        issuer.takes(Duration::from_secs(2));
        let many = (0..20).map(|_| found(&jwks, "a"));
        assert!(futures_util::future::join_all(many).await.into_iter().all(|found| found == Some(1)));
        assert_eq!(issuer.asked(), 1);
        advance(REFRESH - Duration::from_secs(3)).await;
        assert_eq!((found(&jwks, "a").await, issuer.asked()), (Some(1), 1));
        advance(Duration::from_secs(3)).await;
        assert_eq!((found(&jwks, "a").await, issuer.asked()), (Some(1), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_ask_the_issuer_once_in_ten_seconds() {
        let (issuer, jwks) = cache();
        issuer.offers(&["a"]);
        assert_eq!(found(&jwks, "a").await, Some(1));
        issuer.offers(&["b"]);
        for n in 0..50 {
            assert_eq!(found(&jwks, &format!("none-{n}")).await, Some(0));
        }
        assert_eq!((found(&jwks, "b").await, issuer.asked()), (Some(0), 1));
        advance(PAUSE).await;
        assert_eq!((found(&jwks, "b").await, issuer.asked()), (Some(1), 2));
        // What the issuer took back is gone.
        assert_eq!((found(&jwks, "a").await, issuer.asked()), (Some(0), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_outlive_a_failing_issuer_by_an_hour() {
        let (issuer, jwks) = cache();
        issuer.offers(&["a"]);
        assert_eq!(found(&jwks, "a").await, Some(1));
        issuer.fails();
        advance(STALE - Duration::from_secs(1)).await;
        assert_eq!((found(&jwks, "a").await, issuer.asked()), (Some(1), 2));
        advance(Duration::from_secs(2)).await;
        let error = jwks.keys(Some("a")).await.err().unwrap();
        assert!(error.0.contains("https://issuer"), "{error}");
        advance(PAUSE).await;
        issuer.offers(&["a"]);
        assert_eq!(found(&jwks, "a").await, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_issuer_holds_nobody_up_for_long() {
        let (issuer, jwks) = cache();
        issuer.offers(&["a"]);
        issuer.takes(Duration::from_secs(3600));
        let begun = Instant::now();
        assert!(jwks.keys(Some("a")).await.is_err());
        assert!(begun.elapsed() <= FETCH + PATIENCE, "{:?}", begun.elapsed());
        // Not asked again for a while, and answered at once.
        let begun = Instant::now();
        assert!(jwks.keys(Some("a")).await.is_err());
        assert_eq!((begun.elapsed(), issuer.asked()), (Duration::ZERO, 1));
        advance(PAUSE).await;
        issuer.takes(Duration::ZERO);
        assert_eq!(found(&jwks, "a").await, Some(1));
        // A known key waits a second; the fetch goes on and brings what it brings.
        advance(REFRESH).await;
        issuer.takes(Duration::from_secs(4));
        issuer.offers(&["b"]);
        let begun = Instant::now();
        assert_eq!(found(&jwks, "a").await, Some(1));
        assert_eq!(begun.elapsed(), PATIENCE);
        sleep(Duration::from_secs(4)).await;
        assert_eq!((found(&jwks, "a").await, found(&jwks, "b").await), (Some(0), Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_goes_on_when_who_asked_leaves() {
        let (issuer, jwks) = cache();
        issuer.offers(&["a"]);
        issuer.takes(Duration::from_secs(2));
        assert!(timeout(Duration::from_secs(1), jwks.keys(Some("a"))).await.is_err());
        assert_eq!((found(&jwks, "a").await, issuer.asked()), (Some(1), 1));
    }

    #[test]
    fn only_public_keys_for_signatures_are_taken() {
        let rsa = |more: serde_json::Value| {
            let mut key = json!({"kty": "RSA", "kid": "k", "n": "AQAB", "e": "AQAB"});
            key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            usable(key).map(|key| key.key.algorithms.clone())
        };
        assert_eq!(rsa(json!({})).unwrap().len(), 6);
        assert_eq!(rsa(json!({"use": "sig", "alg": "PS256"})), Some(vec![Algorithm::PS256]));
        assert_eq!(rsa(json!({"key_ops": ["verify"]})).unwrap().len(), 6);
        for unfit in [
            json!({"use": "enc"}),
            json!({"alg": "HS256"}),
            json!({"alg": "none"}),
            json!({"alg": "RSA-OAEP"}),
            json!({"key_ops": ["encrypt"]}),
        ] {
            assert_eq!(rsa(unfit.clone()), None, "{unfit}");
        }
        for other in [
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}),
            json!({"kty": "new"}),
            json!(1),
        ] {
            assert!(usable(other.clone()).is_none(), "{other}");
        }
    }

    #[test]
    fn a_document_without_a_usable_key_is_refused() {
        for wrong in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AA"}]}"#] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_url_must_be_safe_to_ask() {
        for good in ["https://issuer.example/jwks", "http://127.0.0.1:1/", "http://[::1]/", "http://localhost/jwks"] {
            assert!(Jwks::new(JwksOptions::new(good)).is_ok(), "{good}");
        }
        for (bad, remedy) in [("http://issuer.example/jwks", "https"), ("ftp://x/", "https://"), ("jwks", "https://")] {
            let error = Jwks::new(JwksOptions::new(bad)).unwrap_err();
            assert!(error.0.starts_with("jwks_url ") && error.0.contains(remedy), "{error}");
        }
        let shown = format!("{:?}", JwksOptions::new("https://me:s3cret@issuer.example/x?key=s3cret"));
        assert!(shown.contains("issuer.example") && !shown.contains("s3cret"), "{shown}");
    }
}
