//! JSON Web Tokens, signed by somebody this runtime trusts.

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use arcp_proto::Error;
use arcp_proto::machine::session::Identity;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};

use super::jwks::{Document, Jwks, JwksOptions};
use super::{Verifier, VerifierError, VerifyFuture, unauthenticated};
use crate::span::say;

/// A shorter secret can be guessed from one token.
pub(super) const SHORTEST_SECRET: usize = 32;
/// More would let a token live on long after its end.
const LONGEST_LEEWAY: Duration = Duration::from_secs(3600);
/// A longer token is wrong without being read.
const LONGEST_TOKEN: usize = 64 << 10;
/// A 2048-bit RSA key is longer than this in DER; the backend takes no shorter one.
const SHORTEST_RSA_DER: usize = 256;

/// Where the keys come from. They also say which algorithms a token may be signed with: the token never does.
#[derive(Clone)]
pub enum JwtKey {
    /// A secret shared with the issuer, at least 32 bytes: HS256, HS384, HS512.
    Secret(Vec<u8>),
    /// One public key as PEM: RS and PS 256, 384, 512 for RSA; ES256 or ES384 by its curve; EdDSA for Ed25519.
    PublicKeyPem(Vec<u8>),
    /// A JSON Web Key Set kept at a URL: each of its public keys for what it is made for.
    Jwks(JwksOptions),
    /// The JSON text of a key set, which never changes. Besides public keys it may hold secrets (`kty` of `oct`).
    JwksDocument(String),
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JwtKey::Secret(_) => f.write_str("Secret"),
            JwtKey::PublicKeyPem(_) => f.write_str("PublicKeyPem"),
            JwtKey::Jwks(options) => f.debug_tuple("Jwks").field(options).finish(),
            JwtKey::JwksDocument(_) => f.write_str("JwksDocument"),
        }
    }
}

/// What a token must be.
#[derive(Clone, Debug)]
pub struct JwtOptions {
    /// Where the keys come from.
    pub key: JwtKey,
    /// Narrows the algorithms the keys allow, by their names such as `RS256`. `None`: all of them.
    pub algorithms: Option<Vec<String>>,
    /// The token's `aud` must name one of these. Empty: the token must have no `aud`, since it was meant for another.
    pub audience: Vec<String>,
    /// The token's `iss` must be this. `None`: any.
    pub issuer: Option<String>,
    /// By how much clocks may differ when `exp` and `nbf` are judged; 30 s, at most 1 h.
    pub leeway: Duration,
    /// The claim that names the principal, a text that is not empty; `sub`.
    pub principal_claim: String,
    /// The claim that lists scopes, as a text with spaces between them or as a list of texts; `scope`.
    pub scopes_claim: String,
}

impl JwtOptions {
    /// These keys, and the defaults otherwise.
    pub fn new(key: JwtKey) -> Self {
        JwtOptions {
            key,
            algorithms: None,
            audience: Vec::new(),
            issuer: None,
            leeway: Duration::from_secs(30),
            principal_claim: "sub".into(),
            scopes_claim: "scope".into(),
        }
    }
}

/// Verifies signed tokens. `exp` is required and `nbf` kept; every wrong token gets the same answer, and keys
/// that cannot be had are an `INTERNAL_ERROR`. Cheap to clone.
#[derive(Clone)]
pub struct JwtVerifier {
    rules: Arc<Rules>,
    keys: Keys,
}

#[derive(Clone)]
enum Keys {
    Fixed(Arc<Key>),
    Jwks(Arc<Jwks>),
    Document(Arc<Document>),
}

/// A key with the algorithms it may be used with.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) key: DecodingKey,
    pub(super) algorithms: Vec<Algorithm>,
}

/// What holds whatever the key is.
struct Rules {
    /// Its `algorithms` are what was asked for; those of the key at hand narrow them.
    validation: Validation,
    principal_claim: String,
    scopes_claim: String,
}

impl JwtVerifier {
    /// A verifier of tokens that are as `options` say. Nothing is fetched yet.
    ///
    /// # Errors
    /// A sentence that names the option, when a key is unusable or weak, an algorithm is unknown or not the key's, or
    /// the URL of the key set is neither `https` nor on this machine.
    pub fn new(options: JwtOptions) -> Result<Self, VerifierError> {
        // D-15; another part of the process may have chosen before.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let (keys, possible) = match options.key {
            JwtKey::Secret(secret) => fixed(secret_key(&secret)?),
            JwtKey::PublicKeyPem(pem) => fixed(pem_key(&pem)?),
            JwtKey::Jwks(jwks) => (Keys::Jwks(Arc::new(Jwks::new(jwks)?)), asymmetric()),
            JwtKey::JwksDocument(text) => {
                let document = Document::new(&text)?;
                let possible = document.algorithms();
                (Keys::Document(Arc::new(document)), possible)
            }
        };
        let mut validation = Validation::new(Algorithm::HS256);
        validation.algorithms = chosen(options.algorithms, possible)?;
        validation.validate_nbf = true;
        validation.leeway = leeway(options.leeway)?;
        if options.audience.iter().any(String::is_empty) {
            return Err(VerifierError(
                "audience must not be empty text; leave it out to take tokens without aud".into(),
            ));
        }
        if !options.audience.is_empty() {
            validation.required_spec_claims.insert("aud".into());
            validation.set_audience(&options.audience);
        }
        if let Some(issuer) = options.issuer {
            if issuer.is_empty() {
                return Err(VerifierError("issuer must not be empty text; leave it out to take any".into()));
            }
            validation.required_spec_claims.insert("iss".into());
            validation.set_issuer(&[issuer]);
        }
        if options.principal_claim.is_empty() {
            return Err(VerifierError("principal_claim must not be empty text; leave it out for \"sub\"".into()));
        }
        let JwtOptions { principal_claim, scopes_claim, .. } = options;
        Ok(JwtVerifier { rules: Arc::new(Rules { validation, principal_claim, scopes_claim }), keys })
    }
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("JwtVerifier");
        if let Keys::Jwks(jwks) = &self.keys {
            shown.field("jwks", jwks);
        }
        shown
            .field("algorithms", &self.rules.validation.algorithms)
            .field("audience", &self.rules.validation.aud)
            .field("issuer", &self.rules.validation.iss)
            .field("principal_claim", &self.rules.principal_claim)
            .finish()
    }
}

impl Verifier for JwtVerifier {
    fn verify(&self, token: &str) -> VerifyFuture {
        // What cannot be right is not worth a fetch.
        let header = Some(token).filter(|token| token.len() <= LONGEST_TOKEN).map(jsonwebtoken::decode_header);
        let header = match header {
            // A critical extension is one that must be understood, and none is.
            Some(Ok(header)) if header.crit.is_none() && self.rules.validation.algorithms.contains(&header.alg) => {
                header
            }
            _ => return Box::pin(ready(Err(unauthenticated()))),
        };
        match &self.keys {
            Keys::Fixed(key) => Box::pin(ready(self.rules.judge(token, header.alg, &[Arc::clone(key)]))),
            Keys::Document(document) => {
                let keys = document.matching(header.kid.as_deref());
                Box::pin(ready(self.rules.judge(token, header.alg, &keys)))
            }
            Keys::Jwks(jwks) => {
                let (jwks, rules, token) = (Arc::clone(jwks), Arc::clone(&self.rules), token.to_owned());
                Box::pin(async move {
                    let keys = jwks.keys(header.kid.as_deref()).await.map_err(|error| {
                        say(|| tracing::warn!(error = error.0, "no keys to verify tokens with"));
                        Error::internal("the token could not be verified")
                    })?;
                    rules.judge(&token, header.alg, &keys)
                })
            }
        }
    }
}

/// What a claim lists, as issuers write it: one text with spaces between, or a list of texts.
fn scopes(claim: &serde_json::Value) -> Vec<String> {
    match claim {
        serde_json::Value::String(text) => text.split_whitespace().map(str::to_owned).collect(),
        serde_json::Value::Array(list) => list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

impl Rules {
    /// Whose a token is that one of these keys signed with `algorithm`, and whose claims hold.
    fn judge(&self, token: &str, algorithm: Algorithm, keys: &[Arc<Key>]) -> Result<Identity, Error> {
        let mut validation = self.validation.clone();
        validation.algorithms = vec![algorithm];
        keys.iter()
            .filter(|key| key.algorithms.contains(&algorithm))
            .find_map(|key| jsonwebtoken::decode::<serde_json::Value>(token, &key.key, &validation).ok())
            .and_then(|token| {
                let principal = token.claims.get(&self.principal_claim)?.as_str().filter(|name| !name.is_empty())?;
                let scopes = token.claims.get(&self.scopes_claim).map(scopes).unwrap_or_default();
                Some(Identity { principal: principal.to_owned(), scopes })
            })
            .ok_or_else(unauthenticated)
    }
}

fn fixed(key: Key) -> (Keys, Vec<Algorithm>) {
    let algorithms = key.algorithms.clone();
    (Keys::Fixed(Arc::new(key)), algorithms)
}

fn asymmetric() -> Vec<Algorithm> {
    [AlgorithmFamily::Rsa, AlgorithmFamily::Ec, AlgorithmFamily::Ed]
        .iter()
        .flat_map(|f| f.algorithms())
        .copied()
        .collect()
}

fn secret_key(secret: &[u8]) -> Result<Key, VerifierError> {
    if secret.len() < SHORTEST_SECRET {
        return Err(VerifierError(format!(
            "secret has {} bytes, which can be guessed; use at least {SHORTEST_SECRET} random ones",
            secret.len()
        )));
    }
    Ok(Key { key: DecodingKey::from_secret(secret), algorithms: AlgorithmFamily::Hmac.algorithms().to_vec() })
}

fn pem_key(pem: &[u8]) -> Result<Key, VerifierError> {
    let text = String::from_utf8_lossy(pem);
    let label = text.split_once("-----BEGIN ").and_then(|(_, rest)| rest.split_once("-----")).map(|(label, _)| label);
    let refuse = |what: &str| Err(VerifierError(format!("public_key_pem {what}")));
    match label {
        Some("PUBLIC KEY" | "RSA PUBLIC KEY") => {}
        Some(label) if label.ends_with("PRIVATE KEY") => {
            return refuse("is a private key, which a verifier must not have; give the public one");
        }
        Some("CERTIFICATE") => {
            return refuse("is a certificate; give its public key, as openssl x509 -pubkey -noout prints it");
        }
        _ => return refuse("holds no public key; it must begin with -----BEGIN PUBLIC KEY-----"),
    }
    let key = DecodingKey::from_rsa_pem(pem)
        .or_else(|_| DecodingKey::from_ec_pem(pem))
        .or_else(|_| DecodingKey::from_ed_pem(pem));
    let Ok(key) = key else { return refuse("cannot be read; use an RSA, P-256, P-384 or Ed25519 key") };
    let length = key.try_get_as_bytes().map_or(0, <[u8]>::len);
    match algorithms_of(key.family(), length) {
        Some(algorithms) => Ok(Key { key, algorithms }),
        None => refuse("is of a kind not supported; use RSA of at least 2048 bits, P-256, P-384 or Ed25519"),
    }
}

/// What a public key of this length, as jsonwebtoken holds it, is for.
fn algorithms_of(family: AlgorithmFamily, length: usize) -> Option<Vec<Algorithm>> {
    match (family, length) {
        (AlgorithmFamily::Rsa, SHORTEST_RSA_DER..) => Some(family.algorithms().to_vec()),
        (AlgorithmFamily::Ec, 65) => Some(vec![Algorithm::ES256]),
        (AlgorithmFamily::Ec, 97) => Some(vec![Algorithm::ES384]),
        (AlgorithmFamily::Ed, 32) => Some(vec![Algorithm::EdDSA]),
        _ => None,
    }
}

/// The algorithms of these names, all of which the keys must allow.
fn chosen(names: Option<Vec<String>>, possible: Vec<Algorithm>) -> Result<Vec<Algorithm>, VerifierError> {
    let Some(names) = names else { return Ok(possible) };
    if names.is_empty() {
        return Err(VerifierError("algorithms must not be an empty list; leave it out for all the key allows".into()));
    }
    names
        .into_iter()
        .map(|name| {
            let known = name.parse().ok().filter(|algorithm| possible.contains(algorithm));
            known.ok_or_else(|| {
                VerifierError(format!("algorithms: {name:?} is not one the key allows; these are: {possible:?}"))
            })
        })
        .collect()
}

fn leeway(leeway: Duration) -> Result<u64, VerifierError> {
    if leeway > LONGEST_LEEWAY {
        let (got, most) = (leeway.as_secs(), LONGEST_LEEWAY.as_secs());
        return Err(VerifierError(format!("leeway must be at most {most} s, got {got} s")));
    }
    Ok(leeway.as_secs())
}
