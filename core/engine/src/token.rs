//! Where a client's bearer token comes from.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::error::Error;

/// How long a token may take to come; a callback that takes longer has failed.
const TOKEN_WAIT: Duration = Duration::from_secs(10);

type Asked = Pin<Box<dyn Future<Output = Result<String, Error>> + Send>>;

/// A token, or what gives one, asked anew at each connection (D-24). Its `Debug` shows no token.
#[derive(Clone)]
pub struct Token(Kind);

#[derive(Clone)]
enum Kind {
    Fixed(Arc<str>),
    Asked(Arc<dyn Fn() -> Asked + Send + Sync>),
}

impl Token {
    /// The token for the next connection.
    ///
    /// # Errors
    /// The callback's own error; `Timeout` after 10 s.
    pub(crate) async fn get(&self) -> Result<Arc<str>, Error> {
        match &self.0 {
            Kind::Fixed(token) => Ok(Arc::clone(token)),
            Kind::Asked(ask) => match timeout(TOKEN_WAIT, ask()).await {
                Ok(token) => token.map(Arc::from),
                Err(_) => Err(Error::Timeout(format!("no token within {} s", TOKEN_WAIT.as_secs()))),
            },
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}

/// What a client can be given as its token: text, or an `async` closure that returns it or an error.
pub trait TokenSource {
    /// The token, or what gives one.
    fn into_token(self) -> Token;
}

impl TokenSource for Token {
    fn into_token(self) -> Token {
        self
    }
}

impl TokenSource for &str {
    fn into_token(self) -> Token {
        Token(Kind::Fixed(self.into()))
    }
}

impl TokenSource for String {
    fn into_token(self) -> Token {
        Token(Kind::Fixed(self.into()))
    }
}

impl TokenSource for &String {
    fn into_token(self) -> Token {
        self.as_str().into_token()
    }
}

impl<F, Asking> TokenSource for F
where
    F: Fn() -> Asking + Send + Sync + 'static,
    Asking: Future<Output = Result<String, Error>> + Send + 'static,
{
    fn into_token(self) -> Token {
        Token(Kind::Asked(Arc::new(move || Box::pin(self()))))
    }
}
