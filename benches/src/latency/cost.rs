//! What processes spend, read from `/proc`.
//!
//! CPU time is the scheduler's own count in nanoseconds over all threads (`schedstat`); its split
//! into user and kernel time follows the kernel's `utime` and `stime`, which count ticks of 10 ms.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::memory::{Memory, field};

/// Who spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    /// The load generator: the application on the client's side.
    Client,
    /// The data plane on the client's side.
    Near,
    /// The data plane on the server's side.
    Far,
    /// The data plane between them, in modes that have one there.
    Waypoint,
    /// The application on the server's side.
    Server,
}

impl Part {
    /// Whether it belongs to the data plane.
    pub(super) fn is_proxy(self) -> bool {
        matches!(self, Self::Near | Self::Far | Self::Waypoint)
    }
}

/// What one process spent during one measurement, and what it held at its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Cost {
    /// Whose process it is.
    pub(super) part: Part,
    /// CPU time in user space.
    pub(super) user_us: f64,
    /// CPU time in the kernel.
    pub(super) kernel_us: f64,
    /// Context switches because it had nothing to do.
    pub(super) waits: u64,
    /// Context switches because others wanted the CPU.
    pub(super) preemptions: u64,
    /// Resident memory before: for idle connections before they were opened, else when counting
    /// began.
    pub(super) rss_before_kib: u64,
    /// Resident memory.
    pub(super) rss_kib: u64,
    /// Of that, what no file backs: memory that no other process can share.
    pub(super) anonymous_kib: u64,
    /// The same with shared pages split among those who share them.
    pub(super) pss_kib: u64,
}

/// The counters of one process at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    /// Nanoseconds on a CPU, waits and preemptions by thread: threads end and begin.
    threads: BTreeMap<u32, [u64; 3]>,
    user_ticks: u64,
    kernel_ticks: u64,
    memory: Memory,
}

impl Meter {
    /// The same with another memory before: what was held before something began.
    pub(super) fn with_memory_of(mut self, earlier: &Self) -> Self {
        self.memory = earlier.memory;
        self
    }

    /// Reads the counters of `pid`.
    pub(super) fn read(pid: u32) -> io::Result<Self> {
        let mut meter = Self::default();
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?;
            let number = thread.file_name().to_string_lossy().parse().map_err(io::Error::other)?;
            // A thread may end while we look.
            let Ok(spent) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
            let on_cpu = spent.split(' ').next().and_then(|text| text.parse().ok());
            let field = |name| field(&status, name).unwrap_or_default();
            let (waits, preempted) =
                (field("voluntary_ctxt_switches:"), field("nonvoluntary_ctxt_switches:"));
            meter.threads.insert(number, [on_cpu.unwrap_or_default(), waits, preempted]);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // proc_pid_stat(5): the name may hold anything; utime and stime are fields 14 and 15.
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks = |index| rest.split(' ').nth(index).and_then(|text| text.parse().ok());
        meter.user_ticks = ticks(11).unwrap_or_default();
        meter.kernel_ticks = ticks(12).unwrap_or_default();
        // Last, because it takes longest.
        meter.memory = Memory::read(pid);
        Ok(meter)
    }

    /// What a process spent from `self` to `later`.
    pub(super) fn cost(&self, later: &Self, part: Part) -> Cost {
        let mut sums = [0_u64; 3];
        for (thread, after) in &later.threads {
            let before = self.threads.get(thread).copied().unwrap_or_default();
            for ((sum, after), before) in sums.iter_mut().zip(after).zip(before) {
                *sum += after.saturating_sub(before);
            }
        }
        let [on_cpu, waits, preemptions] = sums;
        let user = later.user_ticks.saturating_sub(self.user_ticks) as f64;
        let kernel = later.kernel_ticks.saturating_sub(self.kernel_ticks) as f64;
        let user_share = if user + kernel > 0.0 { user / (user + kernel) } else { 0.0 };
        let total_us = on_cpu as f64 / 1000.0;
        Cost {
            part,
            user_us: total_us * user_share,
            kernel_us: total_us * (1.0 - user_share),
            waits,
            preemptions,
            rss_before_kib: self.memory.rss_kib,
            rss_kib: later.memory.rss_kib,
            anonymous_kib: later.memory.anonymous_kib,
            pss_kib: later.memory.pss_kib,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_and_memory_is_there() {
        let pid = std::process::id();
        let before = Meter::read(pid).unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_millis(30);
        let mut sum = 0_u64;
        while std::time::Instant::now() < end {
            sum = std::hint::black_box(sum.wrapping_mul(3) + 1);
        }
        let cost = before.cost(&Meter::read(pid).unwrap(), Part::Near);
        let spent_us = cost.user_us + cost.kernel_us;
        assert!(spent_us > 1000.0, "{cost:?}");
        assert!(cost.rss_kib >= cost.pss_kib && cost.pss_kib > 0, "{cost:?}");
        assert!(cost.rss_kib > cost.anonymous_kib && cost.anonymous_kib > 0, "{cost:?}");
    }
}
