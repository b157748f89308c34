//! Settings of a client, and what they are by default (runtime-protocol section 4).

use std::time::Duration;

use crate::feature;
use crate::json::Limits;
use crate::message::PeerInfo;

/// How a session is ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseStyle {
    /// `session.bye`, which every deployed runtime understands.
    #[default]
    Bye,
    /// The current draft's `session.close`.
    Close,
}

/// Settings of a client; the defaults are those of runtime-protocol section 4.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Shown in the hello.
    pub client: PeerInfo,
    /// What is asked for, in this order.
    pub features: Vec<String>,
    /// 5 s to wait for the welcome.
    pub handshake_timeout: Duration,
    /// 30 s to wait for an answer to a submit or subscribe.
    pub request_timeout: Duration,
    /// Whether what the application took is acknowledged by itself; at most every 250 ms.
    pub auto_ack: bool,
    /// What the end looks like on the wire.
    pub close_style: CloseStyle,
    /// 2 s to wait for the peer at the end.
    pub close_timeout: Duration,
    /// Bounds on received messages.
    pub limits: Limits,
}

impl ClientConfig {
    /// The defaults, under this name.
    pub fn new(client: PeerInfo) -> Self {
        ClientConfig {
            client,
            features: default_features(),
            handshake_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            auto_ack: true,
            close_style: CloseStyle::Bye,
            close_timeout: Duration::from_secs(2),
            limits: Limits::default(),
        }
    }
}

/// The defaults a runtime without a durable store can honour.
fn default_features() -> Vec<String> {
    feature::CLIENT_DEFAULT.into_iter().map(|feature| feature.as_str().to_owned()).collect()
}
