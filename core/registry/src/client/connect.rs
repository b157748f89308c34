//! Connections to the registry: name, proxy, TLS.

use std::sync::Arc;
use std::sync::OnceLock;

use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::{BuilderVerifierExt as _, Verifier};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::address::Address;

/// What a connection runs over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An open way to the registry.
pub(crate) struct Opened {
    pub(crate) stream: Box<dyn Stream>,
    /// A proxy reads the requests, so they name the whole URL and may carry these credentials.
    pub(crate) through: Option<Option<http::HeaderValue>>,
}

/// Opens connections to one registry.
pub(crate) struct Connector {
    address: Address,
    ca: Option<Vec<u8>>,
    tls: OnceLock<Result<Arc<ClientConfig>, String>>,
    proxy: Option<Intercept>,
}

impl Connector {
    /// Looks for a proxy in the environment (D-39); none stands between this machine and itself.
    pub(crate) fn new(address: Address, ca: Option<Vec<u8>>) -> Self {
        let uri = address.origin.parse().ok().filter(|_| !address.is_loopback());
        let proxy = uri.and_then(|uri| Matcher::from_env().intercept(&uri));
        if !address.secure && !address.is_loopback() {
            let host = &address.host;
            tracing::warn!(target: "arcp", host, "tokens travel in clear: use https:// beyond this machine");
        }
        Connector { address, ca, tls: OnceLock::new(), proxy }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Opens a connection; with `tunnel` a proxy only passes bytes on, as it does for TLS in any case.
    ///
    /// # Errors
    /// One sentence. Nothing was sent to the registry.
    pub(crate) async fn open(&self, tunnel: bool) -> Result<Opened, String> {
        let address = &self.address;
        let mut through = None;
        let stream: Box<dyn Stream> = match &self.proxy {
            None => tcp(&address.host, address.port).await?,
            Some(proxy) => {
                let mut stream = self.open_proxy(proxy).await.map_err(|error| format!("proxy: {error}"))?;
                if address.secure || tunnel {
                    let port = address.port;
                    let target = match address.host.contains(':') {
                        true => format!("[{}]:{port}", address.host),
                        false => format!("{}:{port}", address.host),
                    };
                    ask_tunnel(&mut stream, &target, proxy.basic_auth())
                        .await
                        .map_err(|error| format!("proxy: {error}"))?;
                } else {
                    through = Some(proxy.basic_auth().cloned());
                }
                stream
            }
        };
        let stream = if address.secure { self.secure(stream, &address.host).await? } else { stream };
        Ok(Opened { stream, through })
    }

    async fn open_proxy(&self, proxy: &Intercept) -> Result<Box<dyn Stream>, String> {
        let uri = proxy.uri();
        let secure = match uri.scheme_str() {
            Some("http") | None => false,
            Some("https") => true,
            Some(other) => return Err(format!("{other} proxies are not spoken; name an http:// one")),
        };
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let stream = tcp(host, uri.port_u16().unwrap_or(if secure { 443 } else { 80 })).await?;
        if secure { self.secure(stream, host).await } else { Ok(stream) }
    }

    async fn secure(&self, stream: Box<dyn Stream>, host: &str) -> Result<Box<dyn Stream>, String> {
        let config = self.tls.get_or_init(|| client_config(self.ca.as_deref())).clone()?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| error.to_string())?;
        Ok(Box::new(stream))
    }
}

async fn tcp(host: &str, port: u16) -> Result<Box<dyn Stream>, String> {
    let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(Box::new(stream))
}

/// Has a proxy pass bytes on to `target`.
async fn ask_tunnel(
    stream: &mut Box<dyn Stream>,
    target: &str,
    auth: Option<&http::HeaderValue>,
) -> Result<(), String> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(auth) = auth {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(auth.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(|error| error.to_string())?;
    // Byte by byte, so that nothing behind the head is taken.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= 8192 {
            return Err("its answer is too long".into());
        }
        head.push(stream.read_u8().await.map_err(|error| error.to_string())?);
    }
    let head = String::from_utf8_lossy(&head);
    match head.split_ascii_whitespace().nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        Some("407") => Err("it asks for a user name and password; put them into the proxy's URL".into()),
        status => Err(format!("it answered {}", status.unwrap_or("nothing that can be read"))),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Trusts what the platform trusts, and the certificates of `ca` (PEM) besides (D-14).
fn client_config(ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
    let text = |error: rustls::Error| error.to_string();
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(text)?;
    let config = match ca {
        None => builder.with_platform_verifier().map_err(text)?.with_no_client_auth(),
        Some(pem) => {
            let roots: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
                .collect::<Result<_, _>>()
                .map_err(|error| format!("unreadable certificate in the PEM text: {error}"))?;
            if roots.is_empty() {
                return Err("no certificate in the PEM text".into());
            }
            let verifier = Verifier::new_with_extra_roots(roots, provider()).map_err(text)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
    };
    Ok(Arc::new(config))
}
