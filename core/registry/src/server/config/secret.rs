//! Text that is shown to nobody.

use std::fmt;

use zeroize::Zeroizing;

/// A secret text: overwritten when dropped, and never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps this text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(Zeroizing::new(text.into()))
    }

    /// The text, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// 32 random bytes in base64url.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn random() -> Result<Secret, String> {
        use base64::Engine as _;
        let mut bytes = Zeroizing::new([0_u8; 32]);
        getrandom::fill(&mut bytes[..]).map_err(|error| format!("no random bytes from the system: {error}"))?;
        Ok(Secret::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&bytes[..])))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}
