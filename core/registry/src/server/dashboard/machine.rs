//! How busy this machine is (REG-343, REG-202).

use std::time::{Duration, Instant};

use sysinfo::{CpuRefreshKind, Disks, MemoryRefreshKind, Networks, RefreshKind, System};

use super::alerts::Resources;

/// Between two samples, at least: shares of a processor need a stretch of time.
const AT_LEAST: Duration = Duration::from_millis(900);

/// Samples the machine. What a system does not tell is 0.
#[derive(Debug)]
pub(crate) struct Machine {
    system: Option<System>,
    networks: Option<Networks>,
    capacity: f64,
    sampled: Instant,
    last: Resources,
}

impl Machine {
    /// `capacity_mbps`: 100 percent of the network figure.
    pub(crate) fn new(capacity_mbps: u32) -> Self {
        let what = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        Machine {
            system: System::new_with_specifics(what).ok(),
            networks: Networks::new_with_refreshed_list().ok(),
            capacity: f64::from(capacity_mbps.max(1)) * 1_000_000.0 / 8.0,
            sampled: Instant::now(),
            last: Resources::default(),
        }
    }

    /// The newest figures; asks the system, which takes a moment.
    pub(crate) fn sample(&mut self) -> Resources {
        let passed = self.sampled.elapsed();
        if passed < AT_LEAST {
            return self.last;
        }
        self.sampled = Instant::now();
        let (cpu, memory) = self.system.as_mut().map_or((0.0, 0.0), |system| {
            system.refresh_cpu_usage();
            system.refresh_memory();
            (f64::from(system.global_cpu_usage()), percent(system.used_memory() as f64, system.total_memory() as f64))
        });
        let network = self.networks.as_mut().map_or(0.0, |networks| {
            networks.refresh(true);
            let busiest = networks.values().map(|data| data.received() + data.transmitted()).max().unwrap_or(0);
            percent(busiest as f64 / passed.as_secs_f64(), self.capacity)
        });
        self.last = Resources { cpu: bounded(cpu), memory, network, storage: fullest_disk() };
        self.last
    }
}

/// Of the disk that `/` or the largest share of the system is on.
fn fullest_disk() -> f64 {
    let Ok(disks) = Disks::new_with_refreshed_list() else { return 0.0 };
    let used = |disk: &sysinfo::Disk| disk.total_space().saturating_sub(disk.available_space()) as f64;
    let root = disks.iter().find(|disk| disk.mount_point() == std::path::Path::new("/"));
    let shown = root.or_else(|| disks.iter().max_by_key(|disk| disk.total_space()));
    shown.map_or(0.0, |disk| percent(used(disk), disk.total_space() as f64))
}

fn percent(part: f64, whole: f64) -> f64 {
    bounded(if whole > 0.0 { part / whole * 100.0 } else { 0.0 })
}

fn bounded(percent: f64) -> f64 {
    super::rounded(percent.clamp(0.0, 100.0), 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: REG-343
    #[test]
    fn figures_are_percent() {
        let mut machine = Machine::new(1000);
        machine.sampled = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        let sample = machine.sample();
        assert!(sample.memory > 0.0);
        for figure in [sample.cpu, sample.memory, sample.network, sample.storage] {
            assert!((0.0..=100.0).contains(&figure), "{figure}");
        }
        assert_eq!(machine.sample(), sample, "not sampled again at once");
    }
}
