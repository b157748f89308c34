//! Tokens in clear over a network (R-6.1.10, D-14).

use super::TransportError;

/// What to do about `ws://` to another machine, where everybody on the way can read the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllowCleartext {
    /// Connect, with one warning per connection.
    #[default]
    Warn,
    /// Do not connect.
    Refuse,
    /// Connect: something else protects the way, such as a tunnel.
    Silent,
}

impl AllowCleartext {
    /// Whether a connection to `host`, without brackets, may go on in clear.
    pub(super) fn check(self, host: &str) -> Result<(), TransportError> {
        match self {
            _ if is_loopback(host) => Ok(()),
            AllowCleartext::Silent => Ok(()),
            AllowCleartext::Warn => {
                tracing::warn!(host, "bearer token travels in clear: use wss:// beyond this machine");
                Ok(())
            }
            AllowCleartext::Refuse => Err(TransportError::new(
                "the bearer token would travel in clear, which the settings refuse; use wss:// beyond this machine",
            )),
        }
    }
}

/// Whether a host, without brackets, is this machine by its very name.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    name.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for own in ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback(own), "{own}");
        }
        for other in ["", "example.com", "localhost.example.com", "10.0.0.1", "::2", "127.0.0.1.example.com", "0.0.0.0"]
        {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn a_setting_refuses_cleartext_beyond_this_machine() {
        let refused = AllowCleartext::Refuse.check("example.com").unwrap_err();
        assert!(refused.0.contains("wss://"), "{refused}");
        assert!(AllowCleartext::Refuse.check("127.0.0.1").is_ok());
        assert!(AllowCleartext::Warn.check("example.com").is_ok());
        assert!(AllowCleartext::Silent.check("example.com").is_ok());
    }
}
