//! A wire between a client and a runtime that a case can cut.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::Result;

/// Listens on loopback and carries every connection to the runtime.
pub struct Relay {
    port: u16,
    listening: AbortHandle,
    links: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Relay {
    /// A relay to the runtime at `url`.
    ///
    /// # Errors
    /// The URL is not one of a loopback runtime, or no port is free.
    pub async fn to(url: &str) -> Result<Self> {
        let target = authority(url)?.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|e| format!("listening: {e}"))?;
        let port = listener.local_addr().map_err(|e| format!("listening: {e}"))?.port();
        let links: Arc<Mutex<Vec<AbortHandle>>> = Arc::default();
        let made = Arc::clone(&links);
        let listening = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let target = target.clone();
                let link = tokio::spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(target).await {
                        // Either end may leave as it likes.
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
                made.lock().unwrap_or_else(PoisonError::into_inner).push(link.abort_handle());
            }
        });
        Ok(Self { port, listening: listening.abort_handle(), links })
    }

    /// The URL clients are given.
    ///
    /// # Errors
    /// As [`Relay::to`].
    pub fn url(&self, url: &str) -> Result<String> {
        Ok(url.replacen(authority(url)?, &format!("127.0.0.1:{}", self.port), 1))
    }

    /// Ends every connection without a word; later ones are carried again.
    pub fn cut(&self) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|link| link.abort());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

fn authority(url: &str) -> Result<&str> {
    let rest = url.strip_prefix("ws://").and_then(|rest| rest.split('/').next());
    rest.ok_or_else(|| format!("serve answered the url {url:?}, expected ws://host:port/arcp"))
}
