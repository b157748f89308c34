//! Runs a target on random cases until its share of the time is used up.
//!
//! `ARCP_FUZZ_SECONDS` is the work of all targets together, on new cases each time; without it the same first cases are
//! tried again and again, so that a red run is the fault of a change. A failure names the seed of its round;
//! `ARCP_FUZZ_SEED` begins with that round.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

/// Every target, in this program and in `machine`: they share the time.
const TARGETS: &[&str] = &[
    "codec_bytes",
    "codec_frames",
    "codec_trees",
    "cursor_pages",
    "lease_glob",
    "lease_targets",
    "lease_subset",
    "lease_work",
    "money_decimals",
    "money_budgets",
    "machine_runtime",
    "machine_client",
    "schedule_runtime",
    "schedule_client",
    "schedule_cuts",
    "schedule_healing",
];

/// Cases between two looks at the clock; one seed makes them all.
const ROUND: u32 = 8;
/// Rounds that are tried when nothing else is asked for.
const FIRST_ROUNDS: u64 = 48;
/// A case that takes longer hangs.
const CASE_LIMIT: Duration = Duration::from_secs(60);

/// Tries `check` on values of `strategy`, and fails with the smallest value it can find and the seed of its round.
pub(crate) fn run<S: Strategy>(target: &str, strategy: S, check: impl Fn(S::Value) -> Result<(), String>) {
    assert!(TARGETS.contains(&target), "{target} is not in TARGETS");
    let until = Instant::now() + share();
    let config = Config { cases: ROUND, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let explores = number("ARCP_FUZZ_SECONDS").is_some();
    let first = number("ARCP_FUZZ_SEED").unwrap_or_else(|| match explores {
        true => RandomState::new().hash_one(target),
        false => target.bytes().fold(0, |seed, byte| (seed * 31 + u64::from(byte)) % (1 << 40)) << 20,
    });
    let watchdog = Watchdog::start(target);
    let mut rounds = 0;
    loop {
        let seed = first.wrapping_add(rounds);
        watchdog.next(seed);
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let verdict = TestRunner::new_with_rng(config.clone(), rng).run(&strategy, |value| {
            watchdog.next(seed);
            check(value).map_err(TestCaseError::fail)
        });
        if let Err(failure) = verdict {
            panic!("{target} failed; ARCP_FUZZ_SEED={seed} finds this again\n{failure}");
        }
        rounds += 1;
        if Instant::now() >= until || (!explores && rounds >= FIRST_ROUNDS) {
            break;
        }
    }
    tell(&format!("{target}: {} cases from seed {first}", rounds * u64::from(ROUND)));
}

fn share() -> Duration {
    let targets = TARGETS.len() as u64;
    let seconds = number("ARCP_FUZZ_SECONDS").unwrap_or(20 * targets);
    Duration::from_millis(seconds * 1000 / targets)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, got {text:?}")))
}

#[allow(clippy::print_stderr)]
fn tell(line: &str) {
    eprintln!("{line}");
}

/// Ends the program when a case hangs, since no test can end itself then.
struct Watchdog {
    began: Instant,
    /// When the case at hand began, in milliseconds.
    case: Arc<AtomicU64>,
    seed: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
}

impl Watchdog {
    fn start(target: &str) -> Watchdog {
        let watchdog =
            Watchdog { began: Instant::now(), case: Arc::default(), seed: Arc::default(), done: Arc::default() };
        let (began, target) = (watchdog.began, target.to_owned());
        let (case, seed, done) = (Arc::clone(&watchdog.case), Arc::clone(&watchdog.seed), Arc::clone(&watchdog.done));
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(500));
                let since = began.elapsed().saturating_sub(Duration::from_millis(case.load(Ordering::Relaxed)));
                if since > CASE_LIMIT && !done.load(Ordering::Relaxed) {
                    let seed = seed.load(Ordering::Relaxed);
                    tell(&format!("{target} hangs; ARCP_FUZZ_SEED={seed} finds this again"));
                    std::process::exit(101);
                }
            }
        });
        watchdog
    }

    fn next(&self, seed: u64) {
        self.seed.store(seed, Ordering::Relaxed);
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.case.store(since, Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}
