//! Tokens in clear over a network (R-6.1.10, D-14).

use super::TransportError;
use crate::span::say;

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
                say(|| tracing::warn!(host, "bearer token travels in clear: use wss:// beyond this machine"));
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
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use std::sync::Arc;

    use parking_lot::Mutex;

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

    /// Counts events, and keeps what they say.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl tracing::Subscriber for Log {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            self.0.lock().push(format!("{} {event:?}", event.metadata().level()));
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    /// Rules
    #[tokio::test]
    async fn each_connection_beyond_this_machine_warns_once_or_is_refused() {
        use crate::transport::{ConnectOptions, WebSocketTransport};
        let log = Log::default();
        let _guard = tracing::subscriber::set_default(log.clone());
        let attempt = async |allow_cleartext| {
            // No name of this form exists, so nothing is ever sent.
            let url = "ws://me:s3cret@beyond.invalid:1/arcp?token=s3cret";
            let timeout = Some(std::time::Duration::from_secs(5));
            let options = ConnectOptions { allow_cleartext, timeout, ..ConnectOptions::default() };
            let error = WebSocketTransport::connect(url, options).await.err().map(|error| error.0).unwrap_or_default();
            let said: Vec<_> = log.0.lock().drain(..).filter(|line| line.contains("clear")).collect();
            assert!(!error.contains("s3cret") && !said.concat().contains("s3cret"), "{error} {said:?}");
            (error.contains("settings refuse"), said.iter().filter(|line| line.starts_with("WARN")).count())
        };
        assert_eq!(attempt(AllowCleartext::Warn).await, (false, 1));
        assert_eq!(attempt(AllowCleartext::Silent).await, (false, 0));
        assert_eq!(attempt(AllowCleartext::Refuse).await, (true, 0));
    }
}
