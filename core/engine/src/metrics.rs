//! The figures of a runtime as text for Prometheus. Labels take their values from enums, so the number of series is fixed.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arcp_proto::machine::audit::ResumeRefusal;
use arcp_proto::machine::stats::{FINAL, RuntimeStats};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// The content type of [`render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds, in seconds; the last bucket has none.
const BOUNDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// How long what is decided waits for its commit, by samples: the next begins when the last was committed.
#[derive(Debug, Default)]
pub struct CommitTimes {
    /// The operation that is timed; 0 for none.
    sample: AtomicU64,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    since: Duration,
    histogram: CommitHistogram,
}

/// Waits by length.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CommitHistogram {
    buckets: [u64; BOUNDS.len() + 1],
    count: u64,
    seconds: f64,
}

impl CommitTimes {
    /// This operation was handed to the store, at this time of the monotonic clock.
    pub fn applied(&self, ticket: u64, mono: Duration) {
        if self.sample.load(Ordering::Relaxed) == 0 {
            self.times.lock().since = mono;
            self.sample.store(ticket, Ordering::Release);
        }
    }

    /// Everything up to this operation is kept.
    pub fn stored(&self, ticket: u64, mono: Duration) {
        let sample = self.sample.load(Ordering::Acquire);
        if sample != 0 && sample <= ticket {
            let mut times = self.times.lock();
            let waited = mono.saturating_sub(times.since);
            times.histogram.add(waited);
            self.sample.store(0, Ordering::Release);
        }
    }

    /// What was measured so far.
    pub fn histogram(&self) -> CommitHistogram {
        self.times.lock().histogram
    }
}

impl CommitHistogram {
    fn add(&mut self, waited: Duration) {
        let seconds = waited.as_secs_f64();
        self.buckets[BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len())] += 1;
        self.count += 1;
        self.seconds += seconds;
    }

    /// How many waits.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How long they were together, in seconds.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }
}

/// One look at a runtime as OpenMetrics text, which Prometheus reads.
///
/// # Errors
/// Never in practice: a `String` takes everything.
pub fn render(stats: RuntimeStats, commits: CommitHistogram) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("arcp");
    registry.register_collector(Box::new(Look { stats, commits }));
    let mut out = String::with_capacity(8192);
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Look {
    stats: RuntimeStats,
    commits: CommitHistogram,
}

type Label = [(&'static str, &'static str); 1];

impl Collector for Look {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.stats;
        let totals = &stats.totals;
        let out = &mut encoder;
        gauges(
            out,
            "sessions",
            "Sessions, by whether they have a connection",
            [([("state", "connected")], stats.sessions_connected), ([("state", "detached")], stats.sessions_detached)],
        )?;
        gauges(
            out,
            "jobs",
            "Jobs that have not ended",
            [([("state", "pending")], stats.jobs_pending), ([("state", "running")], stats.jobs_running)],
        )?;
        counters(
            out,
            "jobs_ended",
            "Jobs that ended, by how",
            FINAL.map(|status| ([("status", status.as_str())], totals.ended(status))),
        )?;
        counter(out, "events_emitted", "Events that agents emitted, ends of jobs included", totals.events_emitted)?;
        gauge(out, "queued_frames", "Frames that wait for their connections", stats.frames_queued)?;
        gauge(out, "queued_bytes", "What those frames weigh", stats.bytes_queued)?;
        gauge(out, "unstored_operations", "Operations the store has not kept yet", stats.unstored_ops)?;
        let refused = |why: ResumeRefusal| ([("outcome", why.as_str())], totals.resumes_refused(why));
        let outcomes = std::iter::once(([("outcome", "accepted")], totals.resumes_accepted));
        counters(out, "resumes", "Attempts to resume a session", outcomes.chain(ResumeRefusal::ALL.map(refused)))?;
        counter(out, "authentication_failures", "Tokens that were refused", totals.authentication_failures)?;
        counter(out, "idempotency_repeats", "Submits that met an earlier job", totals.idempotency_repeats)?;
        gauge(out, "subscriptions", "Sessions that follow a job, once per job", stats.subscriptions)?;
        gauge(out, "credentials_outstanding", "Credentials not revoked yet", stats.credentials_outstanding)?;
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.commits.buckets).collect();
        let help = "From a decision to its commit, sampled";
        out.encode_descriptor("store_commit_seconds", help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(self.commits.seconds, self.commits.count, &buckets, None)
    }
}

fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstGauge::new(value).encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn counter(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(out.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn gauges(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Label, u64)>,
) -> fmt::Result {
    let mut family = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
    series.into_iter().try_for_each(|(label, value)| ConstGauge::new(value).encode(family.encode_family(&label)?))
}

fn counters(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Label, u64)>,
) -> fmt::Result {
    let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
    series.into_iter().try_for_each(|(label, value)| ConstCounter::new(value).encode(family.encode_family(&label)?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arcp_proto::message::JobStatus;

    use super::*;

    /// A strict reader of the format: every sample belongs to a family announced right before it, with one help and one
    /// type; names and labels are well formed; no series comes twice; the text ends in `# EOF`.
    fn read(text: &str) -> BTreeMap<String, f64> {
        let (body, rest) = text.split_once("# EOF\n").expect("no end");
        assert_eq!(rest, "");
        let name = |name: &str| {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !name.is_empty(), "{name}");
            name.to_owned()
        };
        let (mut series, mut families) = (BTreeMap::new(), Vec::new());
        let (mut family, mut kind) = (String::new(), "");
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = name(help.split_once(' ').unwrap().0);
                assert!(!families.contains(&family), "{line}");
                families.push(family.clone());
                kind = "";
                continue;
            }
            if let Some(of) = line.strip_prefix("# TYPE ") {
                let (of, named) = of.split_once(' ').unwrap();
                assert_eq!((of, kind), (&*family, ""), "{line}");
                kind = ["gauge", "counter", "histogram"].into_iter().find(|known| *known == named).unwrap();
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            let (sample_name, labels) = match sample.split_once('{') {
                Some((sample_name, labels)) => (sample_name, labels.strip_suffix('}').unwrap()),
                None => (sample, ""),
            };
            let suffixes: &[&str] = match kind {
                "gauge" => &[""],
                "counter" => &["_total"],
                "histogram" => &["_sum", "_count", "_bucket"],
                other => panic!("{line}: {other}"),
            };
            assert!(suffixes.iter().any(|suffix| sample_name == format!("{family}{suffix}")), "{line}");
            if !labels.is_empty() {
                let (label, text) = labels.split_once('=').unwrap();
                name(label);
                let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap();
                assert!(!text.contains(['"', '\\', ',']), "{line}");
            }
            assert!(series.insert(sample.to_owned(), value).is_none(), "{line} twice");
        }
        series
    }

    #[test]
    fn every_figure_is_there_once_and_well_formed() {
        let mut stats =
            RuntimeStats { sessions_connected: 2, jobs_running: 3, bytes_queued: 1 << 40, ..Default::default() };
        stats.totals.events_emitted = 12;
        stats.totals.count_ended(JobStatus::TimedOut);
        let commits = CommitTimes::default();
        commits.applied(1, Duration::from_millis(100));
        commits.applied(2, Duration::from_millis(101));
        commits.stored(2, Duration::from_millis(103));
        // Nothing is sampled now.
        commits.stored(2, Duration::from_secs(900));
        commits.applied(3, Duration::from_secs(1));
        commits.stored(3, Duration::from_secs(8));
        let series = read(&render(stats, commits.histogram()).unwrap());
        for (name, value) in [
            ("arcp_sessions{state=\"connected\"}", 2.0),
            ("arcp_sessions{state=\"detached\"}", 0.0),
            ("arcp_jobs{state=\"running\"}", 3.0),
            ("arcp_jobs_ended_total{status=\"timed_out\"}", 1.0),
            ("arcp_jobs_ended_total{status=\"success\"}", 0.0),
            ("arcp_events_emitted_total", 12.0),
            ("arcp_queued_bytes", 1_099_511_627_776.0),
            ("arcp_resumes_total{outcome=\"accepted\"}", 0.0),
            ("arcp_resumes_total{outcome=\"window_over\"}", 0.0),
            ("arcp_store_commit_seconds_count", 2.0),
            ("arcp_store_commit_seconds_bucket{le=\"0.0025\"}", 0.0),
            ("arcp_store_commit_seconds_bucket{le=\"0.005\"}", 1.0),
            ("arcp_store_commit_seconds_bucket{le=\"+Inf\"}", 2.0),
        ] {
            assert_eq!(series.get(name), Some(&value), "{name}");
        }
        assert!((series["arcp_store_commit_seconds_sum"] - 7.003).abs() < 1e-9);
        assert_eq!(series.len(), 2 + 2 + 4 + 1 + 3 + 6 + 2 + 2 + 15);
    }
}
