//! An issuer of tokens: keys of every kind, and a site that shows a key set as well or badly as it is told to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arcp_engine::transport::tls;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// A 1024-bit RSA key, which nobody should trust any more.
pub(crate) const WEAK_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDm9uh+Ik0s0rxDeE9VIyHRU7ZD
hXIVAH5BJSv9MqK5ujjFkDsUcfkhUhGn//yn7EX6pSLM2DcG9p/2e+Iieor2Q11p
LEsscRoc3PMbROHZShZDVYtJnnaTc7EM0E2GBwS5Bnc0yx6g/NeU8INrAA8F2teM
bK3Sp59anqE7HCvFzQIDAQAB
-----END PUBLIC KEY-----
";

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

/// Of "me", for five minutes.
pub(crate) fn claims() -> Value {
    json!({"sub": "me", "exp": now() + 300})
}

/// The same with other members; null takes one away.
pub(crate) fn claims_with(other: Value) -> Value {
    let mut claims = claims();
    for (name, value) in other.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// A token with this header and no signature.
pub(crate) fn unsigned(header: &Value) -> String {
    format!("{}.{}.", base64(header.to_string()), base64(claims().to_string()))
}

pub(crate) fn certificate_pem() -> String {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()
}

pub(crate) struct Signer {
    key: EncodingKey,
    pair: Option<KeyPair>,
}

impl Signer {
    pub(crate) fn secret(secret: &[u8]) -> Self {
        Signer { key: EncodingKey::from_secret(secret), pair: None }
    }

    pub(crate) fn rsa() -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        Signer { key: EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap(), pair: Some(pair) }
    }

    pub(crate) fn p256() -> Self {
        Self::curve(&rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub(crate) fn p384() -> Self {
        Self::curve(&rcgen::PKCS_ECDSA_P384_SHA384)
    }

    fn curve(algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        Signer { key: EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap(), pair: Some(pair) }
    }

    pub(crate) fn ed25519() -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        Signer { key: EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap(), pair: Some(pair) }
    }

    fn pair(&self) -> &KeyPair {
        self.pair.as_ref().unwrap()
    }

    /// All that the key can sign with.
    pub(crate) fn algorithms(&self) -> Vec<Algorithm> {
        let pair = self.pair();
        if pair.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256) {
            vec![Algorithm::ES256]
        } else if pair.is_compatible(&rcgen::PKCS_ECDSA_P384_SHA384) {
            vec![Algorithm::ES384]
        } else {
            self.key.family().algorithms().to_vec()
        }
    }

    pub(crate) fn public_pem(&self) -> String {
        use rcgen::PublicKeyData;
        let der = self.pair().subject_public_key_info();
        let lines = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n")
    }

    pub(crate) fn private_pem(&self) -> String {
        self.pair().serialize_pem()
    }

    /// The public key as a key set shows it, without `alg`.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let mut jwk = if self.pair().is_compatible(&rcgen::PKCS_ED25519) {
            json!({"kty": "OKP", "crv": "Ed25519", "x": base64(self.pair().public_key_raw())})
        } else {
            serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithms()[0]).unwrap()).unwrap()
        };
        jwk.as_object_mut().unwrap().remove("alg");
        jwk["kid"] = kid.into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub(crate) fn sign(&self, algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }

    /// Signs with RS256 under any header.
    pub(crate) fn sign_header(&self, header: &Value) -> String {
        let message = format!("{}.{}", base64(header.to_string()), base64(claims().to_string()));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, Algorithm::RS256).unwrap();
        format!("{message}.{signature}")
    }
}

/// What the site does with a request.
#[derive(Clone)]
pub(crate) enum Answer {
    Http(String),
    HangUp,
    Hang,
}

impl Answer {
    pub(crate) fn keys(keys: &[Value]) -> Self {
        Answer::status("200 OK", &json!({"keys": keys}).to_string())
    }

    pub(crate) fn status(status: &str, body: &str) -> Self {
        let length = body.len();
        Answer::Http(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"))
    }

    /// A body that ends with the connection.
    pub(crate) fn unannounced(body: &str) -> Self {
        Answer::Http(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}"))
    }

    pub(crate) fn redirect(url: &str) -> Self {
        Answer::Http(format!("HTTP/1.1 302 Found\r\nlocation: {url}\r\ncontent-length: 0\r\n\r\n"))
    }
}

/// A key set behind a URL. Dropping it takes it down.
pub(crate) struct Site {
    url: String,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Site {
    pub(crate) async fn start(answer: Answer) -> Self {
        Self::serve(answer, None).await
    }

    /// The same over TLS, and the certificate to trust.
    pub(crate) async fn start_tls(answer: Answer) -> (Self, String) {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (chain, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let config = tls::server_config(chain.as_bytes(), key.as_bytes()).unwrap();
        (Self::serve(answer, Some(TlsAcceptor::from(config))).await, chain)
    }

    async fn serve(answer: Answer, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/jwks", listener.local_addr().unwrap());
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let (answers, count) = (Arc::clone(&answer), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, count, tls) = (Arc::clone(&answers), Arc::clone(&count), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => respond(stream, &answers, &count).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                respond(stream, &answers, &count).await;
                            }
                        }
                    }
                });
            }
        });
        Site { url, answer, asked, task: task.abort_handle() }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// How many requests it had.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &Mutex<Answer>, asked: &AtomicUsize) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    assert!(request.starts_with(b"GET /jwks HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&request));
    asked.fetch_add(1, Ordering::SeqCst);
    let answer = answer.lock().unwrap().clone();
    match answer {
        // The reader may have had enough before the end.
        Answer::Http(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Answer::HangUp => {}
        Answer::Hang => std::future::pending().await,
    }
}
