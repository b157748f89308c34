//! Who must wait after failed attempts, and for how long (REG-120 to REG-126). No clock and no IO: time is an argument.
//!
//! A failure is counted once for the account as tried from that address, and once for the address. The first makes the next
//! try wait, longer each time; either locks after enough failures. An attempt that proved nothing, such as a malformed
//! request, is not told here, so it neither counts nor clears. A success clears the account's count from that address only:
//! who has one good credential cannot clear the way for guesses at others. What is asked while blocked is refused before
//! anything is looked up, so the answer tells nothing about the credential.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// What was attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attempt {
    /// A password or an agent key.
    Login,
    /// A session's PIN.
    Pin,
    /// A token, in production.
    General,
}

impl Attempt {
    /// Its name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Attempt::Login => "login",
            Attempt::Pin => "pin",
            Attempt::General => "general",
        }
    }
}

/// An attempt that must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// What was attempted.
    pub attempt: Attempt,
    /// How long, rounded up to whole seconds, at least 1.
    pub retry_after: u64,
    /// Whether it is a lock, not the wait between tries.
    pub locked: bool,
    /// Failures that lock.
    pub limit: u32,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    /// Failures that lock.
    limit: u32,
    /// The first lock; each further one doubles.
    lock: Duration,
}

/// No lock is longer.
const LONGEST_LOCK: Duration = Duration::from_secs(3600);
/// No wait between tries is longer.
const LONGEST_WAIT: u64 = 300;
/// What failed this long ago, and is not locked, is forgotten.
const MEMORY: Duration = Duration::from_secs(3600);
/// A count starts anew when nothing failed for this long.
const QUIET: Duration = Duration::from_secs(900);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// The first bytes of the SHA-256 of an account, as tried from an address.
    Account([u8; 16], IpAddr),
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    failures: u32,
    locks: u32,
    last: Duration,
    blocked_until: Duration,
    is_lock: bool,
}

/// The counters.
#[derive(Debug)]
pub struct Lockout {
    login: Rule,
    pin: Rule,
    general: Rule,
    capacity: usize,
    entries: HashMap<(Attempt, Subject), Entry>,
}

impl Lockout {
    /// With the limits of RATE_LIMIT_BURST and RATE_LIMIT_RPM; at most `capacity` counters are kept.
    pub fn new(burst: u32, rpm: u32, capacity: usize) -> Lockout {
        let rule = |limit, seconds| Rule { limit, lock: Duration::from_secs(seconds) };
        Lockout {
            login: rule(burst.max(1), 300),
            pin: rule((burst / 2).max(1), 600),
            general: rule((rpm / 10).max(5), 60),
            capacity: capacity.max(16),
            entries: HashMap::new(),
        }
    }

    fn rule(&self, attempt: Attempt) -> Rule {
        match attempt {
            Attempt::Login => self.login,
            Attempt::Pin => self.pin,
            Attempt::General => self.general,
        }
    }

    /// Whether the attempt may be made now.
    ///
    /// # Errors
    /// For how long it must wait.
    pub fn check(&self, attempt: Attempt, account: &str, address: IpAddr, now: Duration) -> Result<(), Blocked> {
        let address = network(address);
        let subjects = [Subject::Account(digest(account), address), Subject::Address(address)];
        let blocked = subjects
            .iter()
            .filter_map(|subject| self.entries.get(&(attempt, *subject)))
            .filter(|entry| entry.blocked_until > now)
            .max_by_key(|entry| entry.blocked_until);
        match blocked {
            None => Ok(()),
            Some(entry) => Err(Blocked {
                attempt,
                retry_after: (entry.blocked_until - now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
                locked: entry.is_lock,
                limit: self.rule(attempt).limit,
            }),
        }
    }

    /// A wrong credential.
    pub fn failure(&mut self, attempt: Attempt, account: &str, address: IpAddr, now: Duration) {
        let rule = self.rule(attempt);
        let address = network(address);
        let account = self.entry(attempt, Subject::Account(digest(account), address), now);
        count(account, rule, now);
        if account.blocked_until <= now && account.failures >= 2 {
            // The wait between tries; only for this account, so that one program does not slow others at its address.
            let wait = (1_u64 << (account.failures - 1).min(6)).min(60) + 30 * u64::from(account.locks);
            account.blocked_until = now + Duration::from_secs(wait.min(LONGEST_WAIT));
            account.is_lock = false;
        }
        let address = self.entry(attempt, Subject::Address(address), now);
        count(address, rule, now);
    }

    /// A right credential.
    pub fn success(&mut self, attempt: Attempt, account: &str, address: IpAddr) {
        self.entries.remove(&(attempt, Subject::Account(digest(account), network(address))));
    }

    /// How many counters are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn entry(&mut self, attempt: Attempt, subject: Subject, now: Duration) -> &mut Entry {
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&(attempt, subject)) {
            self.make_room(now);
        }
        self.entries.entry((attempt, subject)).or_insert(Entry {
            failures: 0,
            locks: 0,
            last: now,
            blocked_until: Duration::ZERO,
            is_lock: false,
        })
    }

    /// Forgets what is old; if that is not enough, the half that failed longest ago, locks last.
    fn make_room(&mut self, now: Duration) {
        self.entries.retain(|_, entry| entry.blocked_until > now || entry.last + MEMORY > now);
        if self.entries.len() < self.capacity {
            return;
        }
        let age = |entry: &Entry| (entry.is_lock && entry.blocked_until > now, entry.last);
        let mut ages: Vec<(bool, Duration)> = self.entries.values().map(age).collect();
        let middle = ages.len() / 2;
        let (_, cut, _) = ages.select_nth_unstable(middle);
        let cut = *cut;
        self.entries.retain(|_, entry| age(entry) > cut);
    }
}

/// Counts one failure, and locks if it was the last one allowed.
fn count(entry: &mut Entry, rule: Rule, now: Duration) {
    if entry.last + QUIET < now && entry.blocked_until <= now {
        entry.failures = 0;
        if entry.last + MEMORY < now {
            entry.locks = 0;
        }
    }
    entry.failures += 1;
    entry.last = now;
    if entry.failures >= rule.limit {
        let lock = rule.lock.saturating_mul(1 << entry.locks.min(16)).min(LONGEST_LOCK);
        entry.blocked_until = now + lock;
        entry.is_lock = true;
        entry.locks += 1;
        entry.failures = 0;
    }
}

fn digest(account: &str) -> [u8; 16] {
    let hash = Sha256::digest(account.as_bytes());
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    short
}

/// One host has a whole /64 of IPv6 addresses at hand.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let s = v6.segments();
            IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lockout() -> Lockout {
        Lockout::new(20, 100, 1000)
    }

    /// Rules: REG-123
    #[test]
    fn tries_wait_longer_after_each_failure() {
        let mut lockout = lockout();
        let mut now = 0;
        lockout.failure(Attempt::Login, "ann", HERE, at(now));
        assert_eq!(lockout.check(Attempt::Login, "ann", HERE, at(now)), Ok(()));
        for wait in [2, 4, 8, 16, 32, 60, 60] {
            lockout.failure(Attempt::Login, "ann", HERE, at(now));
            let blocked = lockout.check(Attempt::Login, "ann", HERE, at(now)).unwrap_err();
            assert_eq!((blocked.retry_after, blocked.locked), (wait, false));
            now += wait;
            assert_eq!(lockout.check(Attempt::Login, "ann", HERE, at(now)), Ok(()));
        }
    }

    /// Rules: REG-124
    #[test]
    fn locks_double_up_to_an_hour() {
        let mut lockout = Lockout::new(2, 100, 1000);
        let mut now = 0;
        for lock in [300, 600, 1200, 2400, 3600, 3600] {
            lockout.failure(Attempt::Login, "ann", HERE, at(now));
            lockout.failure(Attempt::Login, "ann", HERE, at(now));
            let blocked = lockout.check(Attempt::Login, "ann", HERE, at(now)).unwrap_err();
            assert_eq!((blocked.retry_after, blocked.locked, blocked.limit), (lock, true, 2));
            now += lock;
        }
        let pin = (0..10).map(|_| lockout.failure(Attempt::Pin, "s", THERE, at(now))).count();
        assert_eq!(pin, 10);
        assert_eq!(lockout.check(Attempt::Pin, "s", THERE, at(now)).unwrap_err().retry_after, 3600);
    }

    /// Rules: REG-122
    #[test]
    fn one_program_does_not_slow_another_at_its_address() {
        let mut lockout = lockout();
        for _ in 0..3 {
            lockout.failure(Attempt::Login, "ann", HERE, at(0));
        }
        assert!(lockout.check(Attempt::Login, "ann", HERE, at(0)).is_err());
        assert_eq!(lockout.check(Attempt::Login, "ben", HERE, at(0)), Ok(()));
        assert_eq!(lockout.check(Attempt::Login, "ann", THERE, at(0)), Ok(()), "nobody locks ann out from elsewhere");
    }

    /// Rules: REG-124, REG-126
    #[test]
    fn many_accounts_tried_from_one_address_lock_it_and_a_success_does_not_clear_that() {
        let mut lockout = lockout();
        for n in 0..20 {
            lockout.success(Attempt::Login, "mine", HERE);
            lockout.failure(Attempt::Login, &format!("user{n}"), HERE, at(n));
        }
        let blocked = lockout.check(Attempt::Login, "mine", HERE, at(20)).unwrap_err();
        assert!(blocked.locked && blocked.retry_after > 290);
    }

    /// Rules: REG-122
    #[test]
    fn memory_is_bounded_and_keeps_the_locks() {
        let mut lockout = Lockout::new(2, 100, 64);
        lockout.failure(Attempt::Login, "ann", HERE, at(0));
        lockout.failure(Attempt::Login, "ann", HERE, at(0));
        for n in 0..10_000_u32 {
            lockout.failure(Attempt::Login, "x", IpAddr::V4(n.into()), at(1));
        }
        assert!(lockout.len() <= 66, "{}", lockout.len());
        assert!(lockout.check(Attempt::Login, "ann", HERE, at(2)).is_err());
    }

    /// Rules: REG-122
    #[test]
    fn a_network_counts_as_one_address() {
        let mut lockout = Lockout::new(2, 100, 64);
        for n in 1..=2 {
            lockout.failure(Attempt::Login, "x", format!("2001:db8::{n}").parse().unwrap(), at(0));
        }
        assert!(lockout.check(Attempt::Login, "y", "2001:db8::9".parse().unwrap(), at(0)).is_err());
    }
}
