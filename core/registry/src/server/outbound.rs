//! Calls to agents on somebody's behalf (REG-195, REG-196). Anyone may register an endpoint, so it decides nothing: names are
//! resolved here, only allowed addresses are connected to, nothing is redirected, and what comes back is not passed on.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, redirect};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde_json::Value;
use tokio::sync::Semaphore;
use url::{Host, Url};

use super::config::Config;

/// An agent has this long to answer (REG-195).
const TIME: Duration = Duration::from_secs(10);
const CONNECT_TIME: Duration = Duration::from_secs(5);
const RESOLVE_TIME: Duration = Duration::from_secs(5);
/// More calls wait, within their time.
const AT_ONCE: usize = 128;

/// Why an agent was not reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The endpoint is no URL that can be called.
    #[error("its URL cannot be called")]
    Url,
    /// Its address is not one this server calls.
    #[error(
        "it is at an address this server does not call; private and loopback addresses can be allowed with ARCP_CONNECT_ALLOW"
    )]
    Refused,
    /// Nothing answers there.
    #[error("nothing answers there")]
    Unreachable,
    /// It did not answer in time.
    #[error("it did not answer within {} seconds", TIME.as_secs())]
    Timeout,
    /// It answered something else than 200.
    #[error("it answered {0}")]
    Status(u16),
}

/// Which addresses may be called.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Loopback ones.
    pub loopback: bool,
    /// Private ones.
    pub private: bool,
    /// These.
    pub ranges: Vec<IpNet>,
}

impl Targets {
    /// Whether this address may be called. Link-local ones and those of cloud metadata never are.
    pub fn allow(&self, address: IpAddr) -> bool {
        let address = embedded(address);
        if is_never(address) {
            return false;
        }
        if self.ranges.iter().any(|range| range.contains(&address)) {
            return true;
        }
        if address.is_loopback() {
            return self.loopback;
        }
        if is_private(address) {
            return self.private;
        }
        is_public(address)
    }
}

/// The IPv4 address inside of an IPv6 one, where it has one: a translator would call that.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let join = |high: u16, low: u16| {
        let ([p, q], [r, s]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(p, q, r, s))
    };
    match (a, b) {
        // NAT64 of everybody (a network's own, 64:ff9b:1::/48, is no public address), 6to4, and the old form of compatible
        // addresses, but for :: and ::1.
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => join(g, h),
        (0x2002, _) => join(b, c),
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0) && (g, h) != (0, 0) && (g, h) != (0, 1) => join(g, h),
        _ => IpAddr::V6(v6),
    }
}

fn is_never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.octets()[0] == 0
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4 == Ipv4Addr::new(100, 100, 100, 200)
                || v4 == Ipv4Addr::new(192, 0, 0, 192)
                || v4 == Ipv4Addr::new(168, 63, 129, 16)
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_multicast()
                || (v6.segments()[0] & 0xffc0) == 0xfe80
                || v6.segments()[..2] == [0xfd00, 0xec2]
                || v6 == Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xfe00) == 0xfc00 || (v6.segments()[0] & 0xffc0) == 0xfec0,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            // Reserved, protocol assignments, benchmarks.
            let odd = a >= 240 || (a, b, c) == (192, 0, 0) || (a, b & 0xfe) == (198, 18);
            !v4.is_documentation() && !odd
        }
        IpAddr::V6(v6) => {
            let s = v6.segments();
            // Documentation; protocol assignments, of which Teredo holds an IPv4 address behind somebody's gate.
            let odd = (s[0], s[1]) == (0x2001, 0xdb8) || s[0] == 0x3fff || (s[0] == 0x2001 && s[1] < 0x200);
            (s[0] & 0xe000) == 0x2000 && !odd
        }
    }
}

/// Looks names up, for the guard and for tests.
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of a name.
    fn lookup(&self, name: &str) -> Pin<Box<dyn Future<Output = Vec<IpAddr>> + Send>>;
}

/// The system's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: &str) -> Pin<Box<dyn Future<Output = Vec<IpAddr>> + Send>> {
        let name = name.to_owned();
        Box::pin(async move {
            let found = tokio::time::timeout(RESOLVE_TIME, tokio::net::lookup_host((name, 0))).await;
            found.ok().and_then(Result::ok).into_iter().flatten().map(|address| address.ip()).collect()
        })
    }
}

/// The client connects to what this gives and to nothing else, so a name that changes between a look and a call gains
/// nothing.
struct Guard {
    targets: Arc<Targets>,
    lookup: Arc<dyn Lookup>,
}

#[derive(Debug, thiserror::Error)]
#[error("address not allowed")]
struct NotAllowed;

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (targets, found) = (self.targets.clone(), self.lookup.lookup(name.as_str()));
        Box::pin(async move {
            let found = found.await;
            // One that is not allowed among others is a sign of somebody trying.
            if found.iter().any(|address| !targets.allow(*address)) {
                return Err(Box::new(NotAllowed) as Box<dyn std::error::Error + Send + Sync>);
            }
            Ok(Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// Calls agents.
pub struct Outbound {
    client: Client,
    targets: Arc<Targets>,
    turns: Semaphore,
}

impl Outbound {
    /// With the targets of the settings.
    ///
    /// # Errors
    /// When there is no TLS to be had.
    pub fn new(config: &Config) -> Result<Outbound, String> {
        let targets = Targets {
            loopback: config.connect_loopback,
            private: config.connect_private,
            ranges: config.connect_ranges.clone(),
        };
        Outbound::with(targets, Arc::new(SystemLookup))
    }

    /// With these targets and this way to look names up.
    ///
    /// # Errors
    /// When there is no TLS to be had.
    pub fn with(targets: Targets, lookup: Arc<dyn Lookup>) -> Result<Outbound, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_platform_verifier()
            .map_err(|error| format!("the system's certificates cannot be used: {error}"))?
            .with_no_client_auth();
        let targets = Arc::new(targets);
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::none())
            // A proxy would resolve names without the guard.
            .no_proxy()
            .dns_resolver(Arc::new(Guard { targets: targets.clone(), lookup }))
            .connect_timeout(CONNECT_TIME)
            .timeout(TIME)
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Outbound { client, targets, turns: Semaphore::new(AT_ONCE) })
    }

    /// Posts JSON to an agent's endpoint; it answered 200.
    ///
    /// # Errors
    /// Why not.
    pub async fn post(&self, endpoint: &str, path: &str, user_agent: &str, body: &Value) -> Result<(), CallError> {
        let url = self.target(endpoint, path)?;
        let call = async {
            let _turn = self.turns.acquire().await.map_err(|_| CallError::Timeout)?;
            let request = self.client.post(url).header(reqwest::header::USER_AGENT, user_agent).json(body);
            let response = request.send().await.map_err(|error| of(&error))?;
            match response.status().as_u16() {
                200 => Ok(()),
                other => Err(CallError::Status(other)),
            }
        };
        tokio::time::timeout(TIME, call).await.map_err(|_| CallError::Timeout)?
    }

    /// Where to post to. Addresses in the URL itself are never looked up, so they are judged here.
    fn target(&self, endpoint: &str, path: &str) -> Result<Url, CallError> {
        let mut url = Url::parse(endpoint).map_err(|_| CallError::Url)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(CallError::Url);
        }
        let allowed = match url.host() {
            Some(Host::Ipv4(address)) => self.targets.allow(address.into()),
            Some(Host::Ipv6(address)) => self.targets.allow(address.into()),
            Some(Host::Domain(_)) => true,
            None => return Err(CallError::Url),
        };
        if !allowed {
            return Err(CallError::Refused);
        }
        let joined = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&joined);
        url.set_fragment(None);
        // Credentials in a registered URL would be sent to whoever is there.
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| CallError::Url)?;
        Ok(url)
    }
}

fn of(error: &reqwest::Error) -> CallError {
    if error.is_timeout() {
        return CallError::Timeout;
    }
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.is::<NotAllowed>() {
            return CallError::Refused;
        }
        cause = inner.source();
    }
    CallError::Unreachable
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("targets", &self.targets).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(targets: &Targets, address: &str) -> bool {
        targets.allow(address.parse().unwrap())
    }

    /// Rules: REG-196
    #[test]
    fn only_public_addresses_are_called_unless_more_is_allowed() {
        let strict = Targets::default();
        for public in ["93.184.216.34", "2606:2800:220:1::1"] {
            assert!(allows(&strict, public), "{public}");
        }
        let inner = [
            "127.0.0.1",
            "::1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "fd12::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "240.0.0.1",
            "64:ff9b:1:a9fe:a9:fe00:808:808",
            "2001:0:808:808::f5ff:fffe",
        ];
        for inner in inner {
            assert!(!allows(&strict, inner), "{inner}");
        }
        let open = Targets { loopback: true, private: true, ranges: vec!["0.0.0.0/0".parse().unwrap()] };
        assert!(allows(&open, "127.0.0.1") && allows(&open, "10.0.0.1") && allows(&open, "::1"));
        let never = [
            "169.254.169.254",
            "169.254.0.1",
            "fe80::1",
            "0.0.0.0",
            "::",
            "fd00:ec2::254",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::23",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ];
        for never in never {
            assert!(!allows(&open, never), "{never}");
        }
    }

    struct Fixed(Vec<IpAddr>);

    impl Lookup for Fixed {
        fn lookup(&self, _: &str) -> Pin<Box<dyn Future<Output = Vec<IpAddr>> + Send>> {
            let found = self.0.clone();
            Box::pin(async move { found })
        }
    }

    /// Rules: REG-196
    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused() {
        let private: IpAddr = "10.0.0.1".parse().unwrap();
        let public: IpAddr = "93.184.216.34".parse().unwrap();
        let outbound = Outbound::with(Targets::default(), Arc::new(Fixed(vec![public, private]))).unwrap();
        let refused = outbound.post("http://inside.example/x", "/y", "t", &Value::Null).await;
        assert_eq!(refused, Err(CallError::Refused));
        for literal in [
            "http://127.0.0.1:1/",
            "http://[::1]:1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://169.254.169.254/latest",
        ] {
            let refused = outbound.post(literal, "/y", "t", &Value::Null).await;
            assert_eq!(refused, Err(CallError::Refused), "{literal}");
        }
        assert_eq!(outbound.post("ftp://x/", "/y", "t", &Value::Null).await, Err(CallError::Url));
    }

    #[test]
    fn the_path_is_added_and_credentials_are_not_sent() {
        let outbound =
            Outbound::with(Targets { loopback: true, ..Targets::default() }, Arc::new(SystemLookup)).unwrap();
        let url = |endpoint: &str| outbound.target(endpoint, "/connection/request").unwrap().to_string();
        assert_eq!(url("http://127.0.0.1:9/ok"), "http://127.0.0.1:9/ok/connection/request");
        assert_eq!(url("http://127.0.0.1:9"), "http://127.0.0.1:9/connection/request");
        assert_eq!(url("http://u:p@127.0.0.1:9/a/?k=1#f"), "http://127.0.0.1:9/a/connection/request?k=1");
    }
}
