//! Signed tokens against every kind of key: what gets in, what does not, and that nobody can tell why.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

#[path = "support/issuer.rs"]
mod issuer;

use std::sync::Arc;
use std::time::Duration;

use arcp_engine::transport::pair_memory_transports;
use arcp_engine::{
    ChainVerifier, Client, Error, JwksOptions, JwtKey, JwtOptions, JwtVerifier, Runtime, StaticBearerVerifier,
    Verifier, VerifyFuture,
};
use arcp_proto::ErrorCode;
use arcp_proto::machine::client::ClientConfig;
use arcp_proto::machine::runtime::RuntimeConfig;
use arcp_proto::message::PeerInfo;
use issuer::{Answer, Signer, Site, claims, claims_with, now};
use jsonwebtoken::Algorithm;
use serde_json::json;
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(20);
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

async fn ask(verifier: &dyn Verifier, token: &str) -> Result<String, arcp_proto::Error> {
    timeout(BOUND, verifier.verify(token)).await.unwrap().map(|identity| identity.principal)
}

async fn accepts(verifier: &dyn Verifier, token: &str) {
    assert_eq!(ask(verifier, token).await.as_deref(), Ok("me"), "{token}");
}

/// A wrong token has the very answer the fixed table gives (R-6.1.3).
async fn refuses(verifier: &dyn Verifier, token: &str) {
    let unknown = ask(&StaticBearerVerifier::new([("tok", "me")]), "unknown").await;
    assert_eq!(ask(verifier, token).await, unknown, "{token}");
}

async fn fails(verifier: &dyn Verifier, token: &str) {
    let error = ask(verifier, token).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InternalError, "{error}");
    assert!(!error.message.contains(token) && !error.message.contains("127.0.0.1"), "{error}");
}

fn verifier(key: JwtKey) -> JwtVerifier {
    JwtVerifier::new(JwtOptions::new(key)).unwrap()
}

fn secret() -> JwtKey {
    JwtKey::Secret(SECRET.to_vec())
}

fn pem(signer: &Signer) -> JwtKey {
    JwtKey::PublicKeyPem(signer.public_pem().into_bytes())
}

fn jwks(site: &Site) -> JwtVerifier {
    verifier(JwtKey::Jwks(JwksOptions::new(site.url())))
}

#[tokio::test]
async fn every_algorithm_of_a_secret_is_taken() {
    let verifier = verifier(secret());
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let token = Signer::secret(SECRET).sign(algorithm, None, &claims());
        accepts(&verifier, &token).await;
        refuses(&verifier, &token[..token.len() - 4]).await;
        refuses(&verifier, &Signer::secret(&[7; 32]).sign(algorithm, None, &claims())).await;
    }
}

#[tokio::test]
async fn every_public_key_is_taken_as_pem_and_from_a_key_set() {
    for (signer, stranger) in [
        (Signer::rsa(), Signer::rsa()),
        (Signer::p256(), Signer::p256()),
        (Signer::p384(), Signer::p384()),
        (Signer::ed25519(), Signer::ed25519()),
    ] {
        let site = Site::start(Answer::keys(&[signer.jwk("k1")])).await;
        for verifier in [verifier(pem(&signer)), jwks(&site)] {
            for algorithm in signer.algorithms() {
                accepts(&verifier, &signer.sign(algorithm, Some("k1"), &claims())).await;
                accepts(&verifier, &signer.sign(algorithm, None, &claims())).await;
                refuses(&verifier, &stranger.sign(algorithm, Some("k1"), &claims())).await;
            }
        }
    }
}

#[tokio::test]
async fn the_token_does_not_choose_its_algorithm() {
    let signer = Signer::rsa();
    let public = signer.public_pem();
    let site = Site::start(Answer::keys(&[signer.jwk("k1")])).await;
    // The public key, which everybody has, as the secret of an HMAC.
    let confused = Signer::secret(public.as_bytes()).sign(Algorithm::HS256, Some("k1"), &claims());
    // No signature at all.
    let unsigned: Vec<String> =
        ["none", "None", "NONE", ""].iter().map(|name| issuer::unsigned(&json!({"alg": name, "kid": "k1"}))).collect();
    let extended = signer.sign_header(&json!({"alg": "RS256", "kid": "k1", "crit": ["b64"], "b64": true}));
    for verifier in [verifier(pem(&signer)), jwks(&site), verifier(secret())] {
        refuses(&verifier, &confused).await;
        refuses(&verifier, &extended).await;
        for token in &unsigned {
            refuses(&verifier, token).await;
        }
    }
    // Narrowed by the settings.
    let narrow = JwtOptions { algorithms: Some(vec!["PS256".into()]), ..JwtOptions::new(pem(&signer)) };
    let narrow = JwtVerifier::new(narrow).unwrap();
    accepts(&narrow, &signer.sign(Algorithm::PS256, None, &claims())).await;
    refuses(&narrow, &signer.sign(Algorithm::RS256, None, &claims())).await;
    // Narrowed by the key itself.
    let mut jwk = signer.jwk("k1");
    jwk["alg"] = "RS512".into();
    let site = Site::start(Answer::keys(&[jwk])).await;
    accepts(&jwks(&site), &signer.sign(Algorithm::RS512, Some("k1"), &claims())).await;
    refuses(&jwks(&site), &signer.sign(Algorithm::RS256, Some("k1"), &claims())).await;
    // A key set that everybody can read holds no secret to sign with.
    let oct = json!({"kty": "oct", "kid": "k1", "k": issuer::base64(SECRET)});
    let site = Site::start(Answer::keys(&[oct, signer.jwk("k2")])).await;
    refuses(&jwks(&site), &Signer::secret(SECRET).sign(Algorithm::HS256, Some("k1"), &claims())).await;
}

#[tokio::test]
async fn claims_are_kept_to_the_letter() {
    let signer = Signer::secret(SECRET);
    let sign = |claims: serde_json::Value| signer.sign(Algorithm::HS256, None, &claims);
    let plain = verifier(secret());
    accepts(&plain, &sign(claims_with(json!({"exp": now() - 20, "nbf": now() + 20})))).await;
    for wrong in [
        json!({"exp": now() - 40}),
        json!({"exp": null}),
        json!({"exp": "tomorrow"}),
        json!({"exp": -1}),
        json!({"nbf": now() + 40}),
        json!({"nbf": "yesterday"}),
        json!({"aud": "somebody-else"}),
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": 7}),
        json!({"sub": ["me"]}),
    ] {
        refuses(&plain, &sign(claims_with(wrong))).await;
    }
    let strict = JwtVerifier::new(JwtOptions {
        audience: vec!["arcp".into(), "other".into()],
        issuer: Some("https://issuer".into()),
        leeway: Duration::ZERO,
        principal_claim: "email".into(),
        ..JwtOptions::new(secret())
    })
    .unwrap();
    let good = json!({"aud": "arcp", "iss": "https://issuer", "email": "me", "sub": "you"});
    accepts(&strict, &sign(claims_with(good.clone()))).await;
    for (name, value, taken) in [
        ("aud", json!(["x", "other"]), true),
        ("aud", json!(["x"]), false),
        ("aud", json!([]), false),
        ("aud", json!("arcp2"), false),
        ("aud", json!(null), false),
        ("iss", json!("https://issuer/"), false),
        ("iss", json!(null), false),
        ("email", json!(null), false),
        ("exp", json!(now() - 2), false),
        ("nbf", json!(now() + 60), false),
    ] {
        let mut changed = good.clone();
        changed[name] = value;
        let token = sign(claims_with(changed));
        if taken { accepts(&strict, &token).await } else { refuses(&strict, &token).await }
    }
}

#[tokio::test]
async fn what_is_no_token_is_refused_without_asking_the_issuer() {
    let site = Site::start(Answer::keys(&[Signer::p256().jwk("k1")])).await;
    let verifier = jwks(&site);
    let long = format!("{}.a.b", "a".repeat(1 << 20));
    for token in ["", ".", "..", "...", "tok", "a.b.c", "\u{0}.\u{0}.\u{0}", "e30.e30.", &long] {
        refuses(&verifier, token).await;
    }
    refuses(&verifier, &Signer::secret(SECRET).sign(Algorithm::HS256, Some("k1"), &claims())).await;
    assert_eq!(site.asked(), 0);
}

#[tokio::test]
async fn an_unknown_key_asks_the_issuer_at_most_once() {
    let (known, other) = (Signer::p256(), Signer::p256());
    let site = Site::start(Answer::keys(&[known.jwk("k1")])).await;
    let verifier = jwks(&site);
    accepts(&verifier, &known.sign(Algorithm::ES256, Some("k1"), &claims())).await;
    site.answers(Answer::keys(&[other.jwk("k2")]));
    // Within the pause nothing is fetched, and what is known goes on.
    for _ in 0..20 {
        refuses(&verifier, &other.sign(Algorithm::ES256, Some("k2"), &claims())).await;
    }
    accepts(&verifier, &known.sign(Algorithm::ES256, Some("k1"), &claims())).await;
    assert_eq!(site.asked(), 1);
}

#[tokio::test]
async fn an_issuer_that_cannot_be_used_is_the_verifiers_own_failure() {
    let signer = Signer::p256();
    let token = signer.sign(Algorithm::ES256, Some("k1"), &claims());
    let elsewhere = Site::start(Answer::keys(&[signer.jwk("k1")])).await;
    let padding = "x".repeat(2 << 20);
    for answer in [
        Answer::status("500 Internal Server Error", "{}"),
        Answer::status("404 Not Found", "{}"),
        Answer::redirect(&elsewhere.url()),
        Answer::status("200 OK", "<html>"),
        Answer::status("200 OK", r#"{"keys":[]}"#),
        // Over the bound, announced and not.
        Answer::status("200 OK", &json!({"keys": [signer.jwk("k1")], "padding": padding}).to_string()),
        Answer::unannounced(&json!({"keys": [signer.jwk("k1")], "padding": padding}).to_string()),
        Answer::HangUp,
    ] {
        let site = Site::start(answer).await;
        let verifier = jwks(&site);
        fails(&verifier, &token).await;
        // Once: it is not asked again for every token.
        fails(&verifier, &token).await;
        assert_eq!(site.asked(), 1);
    }
    assert_eq!(elsewhere.asked(), 0);
    fails(&verifier(JwtKey::Jwks(JwksOptions::new("http://127.0.0.1:1/jwks"))), &token).await;
}

/// Rules: R-6.1.8
#[tokio::test]
async fn a_slow_issuer_is_given_up() {
    let site = Site::start(Answer::Hang).await;
    let begun = std::time::Instant::now();
    fails(&jwks(&site), &Signer::p256().sign(Algorithm::ES256, Some("k1"), &claims())).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn many_at_once_share_one_fetch() {
    let signer = Signer::ed25519();
    let site = Site::start(Answer::keys(&[signer.jwk("k1")])).await;
    let verifier = jwks(&site);
    let token = signer.sign(Algorithm::EdDSA, Some("k1"), &claims());
    let all: Vec<VerifyFuture> = (0..50).map(|_| verifier.verify(&token)).collect();
    for verdict in timeout(BOUND, futures_util::future::join_all(all)).await.unwrap() {
        assert_eq!(verdict.unwrap().principal, "me");
    }
    assert_eq!(site.asked(), 1);
}

#[tokio::test]
async fn a_key_set_over_tls_is_trusted_by_its_own_certificate_alone() {
    let signer = Signer::p256();
    let (site, ca) = Site::start_tls(Answer::keys(&[signer.jwk("k1")])).await;
    let token = signer.sign(Algorithm::ES256, Some("k1"), &claims());
    let url = site.url().replace("127.0.0.1", "localhost");
    assert!(url.starts_with("https://"), "{url}");
    let trusting = JwksOptions { ca_pem: Some(ca.into_bytes()), ..JwksOptions::new(&url) };
    accepts(&verifier(JwtKey::Jwks(trusting)), &token).await;
    fails(&verifier(JwtKey::Jwks(JwksOptions::new(&url))), &token).await;
}

#[test]
fn settings_that_cannot_hold_are_told() {
    let signer = Signer::rsa();
    let base = || JwtOptions::new(secret());
    let cases = [
        (JwtOptions::new(JwtKey::Secret(b"short-s3cret".to_vec())), "at least 32"),
        (JwtOptions::new(JwtKey::PublicKeyPem(b"not a key".to_vec())), "BEGIN PUBLIC KEY"),
        (JwtOptions::new(JwtKey::PublicKeyPem(signer.private_pem().into_bytes())), "private key"),
        (JwtOptions::new(JwtKey::PublicKeyPem(issuer::certificate_pem().into_bytes())), "openssl x509"),
        (JwtOptions::new(JwtKey::PublicKeyPem(issuer::WEAK_RSA.as_bytes().to_vec())), "2048 bits"),
        (JwtOptions::new(JwtKey::Jwks(JwksOptions::new("http://issuer.example/jwks"))), "https"),
        (JwtOptions { algorithms: Some(vec!["none".into()]), ..base() }, "\"none\""),
        (JwtOptions { algorithms: Some(vec!["RS256".into()]), ..base() }, "HS256"),
        (JwtOptions { algorithms: Some(vec!["HS256".into()]), ..JwtOptions::new(pem(&signer)) }, "RS256"),
        (JwtOptions { algorithms: Some(Vec::new()), ..base() }, "leave it out"),
        (JwtOptions { audience: vec![String::new()], ..base() }, "audience"),
        (JwtOptions { issuer: Some(String::new()), ..base() }, "issuer"),
        (JwtOptions { principal_claim: String::new(), ..base() }, "principal_claim"),
        (JwtOptions { leeway: Duration::MAX, ..base() }, "3600 s"),
    ];
    for (options, expected) in cases {
        let shown = format!("{options:?}");
        let told = JwtVerifier::new(options).unwrap_err().0;
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains("short-s3cret") && !shown.contains("short-s3cret"), "{told} {shown}");
    }
    let shown = format!("{:?} {:?}", base(), verifier(secret()));
    assert!(!shown.contains("0123456789abcdef") && !shown.contains("48, 49, 50"), "{shown}");
}

#[tokio::test]
async fn a_key_set_may_be_given_as_it_is() {
    let (one, two) = (Signer::ed25519(), Signer::p256());
    let document = |keys: &[serde_json::Value]| JwtKey::JwksDocument(json!({"keys": keys}).to_string());
    let keys = verifier(document(&[one.jwk("k1"), two.jwk("k2")]));
    accepts(&keys, &one.sign(Algorithm::EdDSA, Some("k1"), &claims())).await;
    accepts(&keys, &two.sign(Algorithm::ES256, Some("k2"), &claims())).await;
    accepts(&keys, &two.sign(Algorithm::ES256, None, &claims())).await;
    refuses(&keys, &one.sign(Algorithm::EdDSA, Some("k2"), &claims())).await;
    refuses(&keys, &Signer::ed25519().sign(Algorithm::EdDSA, Some("k1"), &claims())).await;
    refuses(&keys, &Signer::secret(SECRET).sign(Algorithm::HS256, Some("k1"), &claims())).await;
    for text in ["", "[]", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}"#] {
        let told = JwtVerifier::new(JwtOptions::new(JwtKey::JwksDocument(text.into()))).unwrap_err().0;
        assert!(told.starts_with("jwks ") && !told.contains("c2hvcnQ"), "{told}");
    }
}

#[tokio::test]
async fn scopes_are_read_as_issuers_write_them() {
    for (claim, expected) in [
        (json!("read write"), vec!["read", "write"]),
        (json!(["read", "write", 7]), vec!["read", "write"]),
        (json!(""), vec![]),
        (json!({"read": true}), vec![]),
    ] {
        let token = Signer::secret(SECRET).sign(Algorithm::HS256, None, &claims_with(json!({"permissions": claim})));
        let options = JwtOptions { scopes_claim: "permissions".into(), ..JwtOptions::new(secret()) };
        let identity = JwtVerifier::new(options).unwrap().verify(&token).await.unwrap();
        assert_eq!(
            (identity.principal.as_str(), identity.scopes),
            ("me", expected.into_iter().map(Into::into).collect())
        );
    }
}

struct Broken;

impl Verifier for Broken {
    fn verify(&self, _token: &str) -> VerifyFuture {
        Box::pin(async { Err(arcp_proto::Error::internal("the token could not be verified")) })
    }
}

#[tokio::test]
async fn the_first_of_a_chain_that_knows_a_token_says_whose_it_is() {
    let table = |principal: &str| Arc::new(StaticBearerVerifier::new([("tok", principal)])) as Arc<dyn Verifier>;
    let signed: Arc<dyn Verifier> = Arc::new(verifier(secret()));
    let token = Signer::secret(SECRET).sign(Algorithm::HS256, None, &claims());
    let chain = ChainVerifier::new([table("me"), table("other"), Arc::clone(&signed)]);
    accepts(&chain, "tok").await;
    accepts(&chain, &token).await;
    refuses(&chain, "unknown").await;
    // One that fails does not stand in the way, and is told when nobody knows the token.
    for chain in
        [ChainVerifier::new([Arc::new(Broken), table("me")]), ChainVerifier::new([table("me"), Arc::new(Broken)])]
    {
        accepts(&chain, "tok").await;
        fails(&chain, "unknown").await;
    }
    refuses(&ChainVerifier::new([]), "tok").await;
}

/// Rules: R-6.1.9
#[tokio::test]
async fn a_session_opens_with_a_signed_token_and_a_failing_issuer_is_told_as_such() {
    let signer = Signer::ed25519();
    let site = Site::start(Answer::keys(&[signer.jwk("k1")])).await;
    let good = signer.sign(Algorithm::EdDSA, Some("k1"), &claims());
    let expired = signer.sign(Algorithm::EdDSA, Some("k1"), &claims_with(json!({"exp": now() - 3600})));
    let runtime = Runtime::new(RuntimeConfig::new(peer()), jwks(&site));
    assert!(connect(&runtime, &good).await.is_ok());
    let told = code(connect(&runtime, &expired).await);
    assert_eq!(told, (ErrorCode::Unauthenticated, code(connect(&runtime, "unknown").await).1));
    let down =
        Runtime::new(RuntimeConfig::new(peer()), verifier(JwtKey::Jwks(JwksOptions::new("http://127.0.0.1:1/"))));
    assert_eq!(code(connect(&down, &good).await).0, ErrorCode::InternalError);
}

fn peer() -> PeerInfo {
    PeerInfo { name: "test".into(), version: "1".into() }
}

async fn connect(runtime: &Runtime, token: &str) -> Result<(), Error> {
    let (left, right) = pair_memory_transports();
    let host = runtime.clone();
    tokio::spawn(async move { host.accept(right).await });
    let client = Client::new(ClientConfig::new(peer()));
    timeout(BOUND, client.connect(left, token)).await.unwrap().map(|_| ())
}

fn code(ended: Result<(), Error>) -> (ErrorCode, String) {
    let error = ended.unwrap_err();
    let error = error.protocol().unwrap_or_else(|| panic!("{error}"));
    (error.code.clone(), error.message.clone())
}
