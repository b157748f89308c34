//! Where the registry is: its base URL, taken apart once.

use url::Url;

use super::error::RegistryError;

/// A base URL that was understood.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) secure: bool,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Host and port as the header `Host` has them.
    pub(crate) authority: String,
    /// `http://host:port`.
    pub(crate) origin: String,
    /// The path before every endpoint, without a slash at its end (REG-014).
    pub(crate) prefix: String,
}

impl Address {
    /// Reads a base URL.
    ///
    /// # Errors
    /// Says what is wrong with it, and shows nothing of it that may be secret.
    pub(crate) fn parse(base_url: &str) -> Result<Address, RegistryError> {
        let wrong = |why: &str| {
            RegistryError::invalid(format!("base_url {why}; write it as http://localhost:8001 or https://host/path"))
        };
        let url = Url::parse(base_url.trim()).map_err(|error| wrong(&format!("is no URL ({error})")))?;
        let secure = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(wrong(&format!("has the scheme {other:?}"))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("holds a user name or password, which is never sent"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("has a query or fragment"));
        }
        let shown = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("has no host"))?;
        let port = url.port_or_known_default().ok_or_else(|| wrong("has no port"))?;
        let authority = url.port().map_or_else(|| shown.to_owned(), |port| format!("{shown}:{port}"));
        Ok(Address {
            secure,
            host: shown.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            origin: format!("{}://{authority}", url.scheme()),
            authority,
            prefix: url.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Whether this is the machine itself, by its very name.
    pub(crate) fn is_loopback(&self) -> bool {
        let name = self.host.strip_suffix('.').unwrap_or(&self.host);
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

/// One segment of a path: all but letters, digits and `-._~` is encoded (REG-014).
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') || (byte == b'.' && !is_dots(text)) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for half in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789ABCDEF"[usize::from(half)]));
            }
        }
    }
    out
}

/// `.` and `..` would be taken for steps.
fn is_dots(text: &str) -> bool {
    matches!(text, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: REG-014
    #[test]
    fn a_path_in_the_base_url_is_kept() {
        let address = Address::parse("http://h/prefix/").unwrap();
        assert_eq!((address.origin.as_str(), address.prefix.as_str()), ("http://h", "/prefix"));
        let address = Address::parse("https://[::1]:8443").unwrap();
        assert_eq!((address.host.as_str(), address.port, address.secure), ("::1", 8443, true));
        assert_eq!((address.authority.as_str(), address.prefix.as_str()), ("[::1]:8443", ""));
        assert!(address.is_loopback());
        assert!(!Address::parse("http://localhost.example.com").unwrap().is_loopback());
    }

    #[test]
    fn a_wrong_base_url_is_told_without_its_secrets() {
        for wrong in ["localhost:8001", "", "ftp://h", "http://", "http://me:s3cret@h", "http://h/?token=s3cret"] {
            let told = Address::parse(wrong).unwrap_err().to_string();
            assert!(told.contains("base_url") && told.contains("http://localhost:8001"), "{wrong}: {told}");
            assert!(!told.contains("s3cret"), "{told}");
        }
    }

    /// Rules: REG-014
    #[test]
    fn ids_are_encoded() {
        assert_eq!(segment("my-agent_1.x~"), "my-agent_1.x~");
        assert_eq!(segment("../b c?d#é%"), "..%2Fb%20c%3Fd%23%C3%A9%25");
        assert_eq!(segment(".."), "%2E%2E");
    }
}
