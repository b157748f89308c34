//! TLS: whom the client trusts (D-14).

use std::sync::Arc;

use arcp_registry::client::{FailureKind, RegistryClient, RegistryOptions};
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{options, perform};

/// A server whose certificate, in PEM, nobody has signed.
async fn server() -> (String, String) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 4096];
            drop(stream.read(&mut head).await);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\nconnection: close\r\n\r\n{\"status\":\"healthy\"}";
            drop(stream.write_all(answer).await);
            drop(stream.shutdown().await);
        }
    });
    (url, own.cert.pem())
}

#[tokio::test]
async fn a_certificate_is_trusted_when_it_is_given() {
    let (url, pem) = server().await;
    let trusting = RegistryClient::new(RegistryOptions { ca: Some(pem.into_bytes()), ..options(&url) });
    assert_eq!(perform(&trusting, "health_check", json!({})).await.unwrap()["status"], "healthy");
    let doubting = RegistryClient::new(RegistryOptions { retry_attempts: 0, ..options(&url) });
    let error = perform(&doubting, "health_check", json!({})).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Connection);
    assert!(error.to_string().contains("certificate"), "{error}");
    let ca = Some(b"no certificate".to_vec());
    let wrong = RegistryClient::new(RegistryOptions { ca, retry_attempts: 0, ..options(&url) });
    let error = perform(&wrong, "health_check", json!({})).await.unwrap_err();
    assert!(error.to_string().contains("no certificate in the PEM text"), "{error}");
}
