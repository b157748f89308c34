//! Which addresses may call at all (REG-114). Only the peer's address counts; forwarded headers say what they like.

use std::net::IpAddr;

use ipnet::IpNet;

/// Blocked ranges, or allowed ranges and nobody else.
#[derive(Clone, Debug, Default)]
pub struct AddressFilter {
    default_deny: bool,
    blocked: Vec<IpNet>,
    allowed: Vec<IpNet>,
}

impl AddressFilter {
    /// With the settings of REG-114.
    pub fn new(default_deny: bool, blocked: Vec<IpNet>, allowed: Vec<IpNet>) -> AddressFilter {
        AddressFilter { default_deny, blocked, allowed }
    }

    /// Whether this peer may call.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, peer: IpAddr) -> Result<(), &'static str> {
        let peer = peer.to_canonical();
        if self.blocked.iter().any(|range| range.contains(&peer)) {
            return Err("Access from this IP address is blocked");
        }
        if self.default_deny && !self.allowed.iter().any(|range| range.contains(&peer)) {
            return Err("Access from this IP address is not allowed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: REG-114
    #[test]
    fn ranges_block_or_allow() {
        let range = |text: &str| vec![text.parse::<IpNet>().unwrap()];
        let peer = |text: &str| text.parse::<IpAddr>().unwrap();
        let blocking = AddressFilter::new(false, range("127.0.0.0/8"), vec![]);
        assert!(blocking.check(peer("127.0.0.1")).is_err() && blocking.check(peer("::ffff:127.0.0.1")).is_err());
        assert!(blocking.check(peer("192.0.2.1")).is_ok());
        let closed = AddressFilter::new(true, vec![], vec![]);
        assert!(closed.check(peer("127.0.0.1")).is_err());
        let narrow = AddressFilter::new(true, vec![], range("127.0.0.1/32"));
        assert!(narrow.check(peer("127.0.0.1")).is_ok() && narrow.check(peer("127.0.0.2")).is_err());
    }
}
