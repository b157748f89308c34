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

/// How a lost link is made anew: full jitter under a limit that doubles with every attempt (D-7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the first attempt; 100 ms.
    pub initial: Duration,
    /// The longest wait before any attempt; 5 s.
    pub max: Duration,
    /// When to stop trying, counted from the first loss that nothing good followed; 15 min, longer than sessions are
    /// usually kept. `None` tries for ever.
    pub give_up_after: Option<Duration>,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(5),
            give_up_after: Some(Duration::from_secs(900)),
        }
    }
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
    /// Whether and how a lost link is healed; `None` makes every loss final. A client that never was welcomed is not
    /// healed, unless it resumes a session (D-24).
    pub reconnect: Option<Backoff>,
    /// 64 MiB: the longest streamed result that is put together in memory; a longer one is taken as chunks.
    pub max_result_bytes: usize,
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
            reconnect: Some(Backoff::default()),
            max_result_bytes: 64 << 20,
        }
    }
}

/// The defaults a runtime without a durable store can honour.
fn default_features() -> Vec<String> {
    feature::CLIENT_DEFAULT.into_iter().map(|feature| feature.as_str().to_owned()).collect()
}
