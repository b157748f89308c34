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
/// When either cannot be read, or they do not fit together.
pub fn server_config(chain: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, TransportError> {
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| TransportError(format!("no private key in the PEM text: {error}")))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TransportError::new)?
        .with_no_client_auth()
        .with_single_cert(certificates(chain)?, key)
        .map_err(TransportError::new)?;
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TransportError::new("no certificate in the PEM text")),
        Err(error) => Err(TransportError(format!("unreadable certificate in the PEM text: {error}"))),
    }
}
