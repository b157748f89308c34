//! Signed tokens for a host that asks about one by itself.

use arcp::{JwtVerifier, Verifier as _};

use crate::core::Core;
use crate::error::ErrorInfo;
use crate::options::JwtOptions;
use crate::port::{Port, Value};

/// Verifies signed tokens outside any runtime.
pub struct TokenVerifier {
    core: Core,
    verifier: JwtVerifier,
}

impl TokenVerifier {
    /// A verifier as [`JwtOptions`] say, as JSON text.
    ///
    /// # Errors
    /// Names the option that is wrong.
    pub fn new(core: &Core, options: &str) -> Result<Self, ErrorInfo> {
        core.handle()?;
        Ok(TokenVerifier { core: core.clone(), verifier: JwtOptions::from_json(options)?.into_verifier()? })
    }

    /// Completes with whose the token is as JSON: `principal` and a list `scopes`.
    ///
    /// # Errors
    /// At once when the core is gone; else through the port: `UNAUTHENTICATED`, or `INTERNAL_ERROR` when the keys cannot be
    /// had.
    pub fn verify(&self, port: &Port, call: u64, token: String) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let verifier = self.verifier.clone();
        port.spawn(&handle, call, async move {
            let identity = verifier.verify(&token).await?;
            let identity = serde_json::json!({"principal": identity.principal, "scopes": identity.scopes});
            Ok(Value::Json(identity.to_string()))
        });
        Ok(())
    }
}
