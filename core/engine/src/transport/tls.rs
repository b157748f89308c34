//! TLS by rustls with one crypto provider, named explicitly (D-14, D-15).

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use rustls_platform_verifier::{BuilderVerifierExt, Verifier};

use super::TransportError;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A client that trusts what the platform trusts, and the certificates of `extra_ca` (PEM) besides.
///
/// # Errors
/// When the PEM text holds no usable certificate.
pub fn client_config(extra_ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, TransportError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TransportError::new)?;
    let config = match extra_ca {
        None => builder.with_platform_verifier().map_err(TransportError::new)?.with_no_client_auth(),
        Some(pem) => {
            let roots = certificates(pem)?;
            let verifier = Verifier::new_with_extra_roots(roots, provider()).map_err(TransportError::new)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
    };
    Ok(Arc::new(config))
}

/// A server with this certificate chain and private key, both PEM.
///
/// # Errors
/// When either cannot be read, the key is encrypted, or they do not fit together.
pub fn server_config(chain: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, TransportError> {
    let key = private_key(key)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TransportError::new)?
        .with_no_client_auth()
        .with_single_cert(certificates(chain)?, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TransportError::new(
                "the private key is not that of the first certificate; give the key it was made with, and the \
                 server's certificate before those of its issuers",
            ),
            other => TransportError(format!("certificate or private key cannot be used: {other}")),
        })?;
    Ok(Arc::new(config))
}

/// The error never repeats the text: it may be half a key.
fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TransportError> {
    let holds = |needle: &[u8]| pem.windows(needle.len()).any(|window| window == needle);
    PrivateKeyDer::from_pem_slice(pem).ok().filter(|_| !holds(b"Proc-Type: 4,ENCRYPTED")).ok_or_else(|| {
        TransportError::new(if holds(b"BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED") {
            "the private key is encrypted; decrypt it, as openssl pkey -in KEY -out PLAIN does, and let nobody else read \
             the file"
        } else if holds(b"PRIVATE KEY-----") {
            "the private key in the PEM text is damaged"
        } else {
            "no private key in the PEM text; it must hold -----BEGIN PRIVATE KEY-----"
        })
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TransportError::new("no certificate in the PEM text")),
        Err(error) => Err(TransportError(format!("unreadable certificate in the PEM text: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use super::*;

    fn identity() -> (String, String) {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (own.cert.pem(), own.signing_key.serialize_pem())
    }

    fn refusal(chain: &str, key: &str) -> String {
        server_config(chain.as_bytes(), key.as_bytes()).unwrap_err().0
    }

    #[test]
    fn a_key_of_another_certificate_is_told() {
        let ((chain, key), (_, other)) = (identity(), identity());
        assert!(server_config(chain.as_bytes(), key.as_bytes()).is_ok());
        assert!(refusal(&chain, &other).contains("is not that of the first certificate"));
        assert!(refusal(&key, &key).contains("no certificate"));
    }

    #[test]
    fn an_unusable_key_is_told_with_what_to_do_and_not_shown() {
        let (chain, key) = identity();
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let traditional = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                           -----END RSA PRIVATE KEY-----\n";
        for encrypted in [encrypted.as_str(), traditional] {
            let told = refusal(&chain, encrypted);
            assert!(told.contains("encrypted") && told.contains("openssl"), "{told}");
        }
        assert!(refusal(&chain, &chain).contains("no private key"));
        let damaged = key.replace("-----END", "?-----END");
        let told = refusal(&chain, &damaged);
        assert!(told.contains("damaged") && !told.contains(&key[40..60]), "{told}");
    }
}
