//! Settings of a runtime, and what they are by default (runtime-protocol section 4).

use std::time::Duration;

use crate::feature::CLIENT_DEFAULT;
use crate::json::Limits;
use crate::machine::result_stream::ResultCaps;
use crate::message::PeerInfo;

/// Who may cancel a job besides its submitting session (D-22).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CancelPolicy {
    /// Nobody, until that session has ended; then its principal.
    #[default]
    Session,
    /// Any session of the same principal.
    Principal,
}

/// Which [`WireProfile`] a runtime writes (D-1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProfileChoice {
    /// `py-1.1` for a hello only that client sends, else the draft's form.
    #[default]
    Auto,
    /// Always the draft's form.
    Draft,
    /// Always the published Python client's form.
    Py11,
}

/// Settings of a runtime; the defaults are those of runtime-protocol section 4.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Shown in the welcome.
    pub info: PeerInfo,
    /// What is offered; the negotiated list is the intersection with the client's.
    pub features: Vec<String>,
    /// 30 s; `None` turns heartbeats off.
    pub heartbeat_interval: Option<Duration>,
    /// 10 s to send a valid hello.
    pub handshake_timeout: Duration,
    /// 600 s a session without a connection is kept.
    pub resume_window: Duration,
    /// 600 s an ended job is kept; never less than the resume window.
    pub retention: Duration,
    /// 24 h an idempotency key is kept.
    pub idempotency_ttl: Duration,
    /// 30 s an agent has to end after a cancellation.
    pub cancel_grace: Duration,
    /// 1 s after the end of a lease before an idle job is ended.
    pub lease_grace: Duration,
    /// 86 400 s, the most a job may ask for.
    pub max_runtime_cap: Duration,
    /// 100 running jobs; later ones wait.
    pub max_concurrent_jobs: usize,
    /// 1000 waiting jobs; later ones are refused.
    pub max_waiting_jobs: usize,
    /// 8 delegations from a submitted job down to a child.
    pub max_delegation_depth: usize,
    /// 64 children of one job that have not ended.
    pub max_live_children: usize,
    /// 10 000 delegated jobs at once; they take no slot (D-25), and trees of them grow fast.
    pub max_delegated_jobs: usize,
    /// 100 000 ended jobs kept, the oldest go first (D-21).
    pub max_ended_jobs: usize,
    /// 64 connected sessions per principal.
    pub max_sessions_per_principal: usize,
    /// 1024 frames waiting for a connection make its jobs' emitters wait (D-20).
    pub outgoing_high_water: usize,
    /// 100 000 events and 64 MiB: what may wait for one connection before it is closed.
    pub buffer_cap: BufferCap,
    /// Bounds on results, and where they are cut.
    pub results: ResultCaps,
    /// 16 384 copies and answers waiting for the store make all emitters wait.
    pub store_high_water: usize,
    /// 10 000 sessions without a connection, the longest lost go first (D-21).
    pub max_detached_sessions: usize,
    /// 1 000 000 idempotency keys; later ones are refused.
    pub max_idempotency_keys: usize,
    /// 1 000 000 messages per second and session, of which two seconds' worth may come at once; later ones are refused
    /// . 0 turns the bound off.
    pub max_messages_per_second: u32,
    /// 1000 events not acknowledged make one `back_pressure` event.
    pub backpressure_threshold: u64,
    /// 6 resume windows without a job, a subscription or anything but heartbeats end a connection. 0 turns
    /// this off.
    pub idle_windows: u32,
    /// The secret that authenticates cursors of listings. `None` draws one; a runtime that continues another
    /// one takes that one's, so that its cursors stay good.
    pub cursor_key: Option<[u8; 32]>,
    /// Who may cancel.
    pub cancel_policy: CancelPolicy,
    /// Which wire form is written.
    pub profile: ProfileChoice,
    /// Bounds on received messages.
    pub limits: Limits,
    /// Whether events wait for `handle_stored` before they leave (D-18).
    pub durable: bool,
    /// Whether there is somebody who issues credentials. They are offered only with `durable` or `revocations_kept`, since
    /// what is not revoked before the process ends must be afterwards (R-9.8.2.6).
    pub provisions: bool,
    /// Whether whoever issues credentials writes down elsewhere, for good, what has to be revoked.
    pub revocations_kept: bool,
    /// 30 s a provisioner has to issue a job's credentials before the submit is refused.
    pub provision_timeout: Duration,
    /// Whether a lease without `model.use` forbids every model; true. It is asked where models are gated, by agents'
    /// checks and in credentials; with neither nothing is enforced.
    pub forbid_unnamed_models: bool,
}

/// A bound by count and by bytes.
#[derive(Clone, Copy, Debug)]
pub struct BufferCap {
    /// Frames.
    pub events: usize,
    /// Bytes, counted as payload plus a flat cost.
    pub bytes: usize,
}

impl RuntimeConfig {
    /// The defaults, under this name.
    pub fn new(info: PeerInfo) -> Self {
        RuntimeConfig {
            info,
            features: CLIENT_DEFAULT.into_iter().map(|feature| feature.as_str().to_owned()).collect(),
            heartbeat_interval: Some(Duration::from_secs(30)),
            handshake_timeout: Duration::from_secs(10),
            resume_window: Duration::from_secs(600),
            retention: Duration::from_secs(600),
            idempotency_ttl: Duration::from_secs(24 * 3600),
            cancel_grace: Duration::from_secs(30),
            lease_grace: Duration::from_secs(1),
            max_runtime_cap: Duration::from_secs(86_400),
            max_concurrent_jobs: 100,
            max_waiting_jobs: 1000,
            max_delegation_depth: 8,
            max_live_children: 64,
            max_delegated_jobs: 10_000,
            max_ended_jobs: 100_000,
            max_sessions_per_principal: 64,
            outgoing_high_water: 1024,
            buffer_cap: BufferCap { events: 100_000, bytes: 64 << 20 },
            results: ResultCaps::default(),
            store_high_water: 16_384,
            max_detached_sessions: 10_000,
            max_idempotency_keys: 1_000_000,
            max_messages_per_second: 1_000_000,
            backpressure_threshold: 1000,
            idle_windows: 6,
            cursor_key: None,
            cancel_policy: CancelPolicy::Session,
            profile: ProfileChoice::Auto,
            limits: Limits::default(),
            durable: false,
            provisions: false,
            revocations_kept: false,
            provision_timeout: Duration::from_secs(30),
            forbid_unnamed_models: true,
        }
    }
}
