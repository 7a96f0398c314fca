//! What is kept of a run: everything that was measured, sample by sample. Medians and comparisons
//! are computed from it, never stored.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::cell::Cell;
use super::cost::Cost;
use super::mode::Mode;

/// One run of the comparison: the JSON file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Where and when.
    pub(super) machine: Machine,
    /// Seconds of each measurement.
    pub(super) secs: f64,
    /// How often each was made.
    pub(super) rounds: u32,
    /// Modes that were asked for and could not be run, and why.
    pub(super) missing: BTreeMap<Mode, String>,
    /// Modes that were given up on the way, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) failed: BTreeMap<Mode, String>,
    /// Why system calls were not counted, if so.
    pub(super) no_syscalls: Option<String>,
    /// System calls of the proxies, counted in runs of their own because counting costs time.
    pub(super) syscalls: Vec<Syscalls>,
    /// Every measurement, in the order in which they were made.
    pub(super) samples: Vec<Sample>,
}

impl Record {
    /// The modes that were measured, in their order.
    pub(super) fn modes(&self) -> Vec<Mode> {
        let modes: BTreeSet<Mode> = self.samples.iter().map(|sample| sample.mode).collect();
        modes.into_iter().collect()
    }

    /// The JSON file, with a line for each sample, so that two files can be compared by eye.
    ///
    /// # Errors
    /// A figure that JSON does not have.
    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        let without = Self { samples: Vec::new(), ..self.clone() };
        let head = serde_json::to_string_pretty(&without)?;
        let lines: Vec<String> =
            self.samples.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        Ok(head.replace("\"samples\": []", &format!("\"samples\": [\n{}\n]", lines.join(",\n"))))
    }
}

/// The system calls of all proxies of a mode while requests went through them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Syscalls {
    /// Through what.
    pub(super) mode: Mode,
    /// What.
    pub(super) cell: Cell,
    /// Requests meanwhile.
    pub(super) requests: u64,
    /// By name; `all` is all of them.
    pub(super) counts: BTreeMap<String, u64>,
}

impl Syscalls {
    /// Those of `cell` through `mode`, if they were counted.
    pub(super) fn find(record: &Record, mode: Mode, cell: Cell) -> Option<&Self> {
        record.syscalls.iter().find(|calls| calls.mode == mode && calls.cell == cell)
    }

    /// Of one name, or all.
    pub(super) fn per_request(&self, name: &str) -> f64 {
        let count = self.counts.get(name).copied().unwrap_or_default();
        count as f64 / self.requests.max(1) as f64
    }
}

/// The machine and the programs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Machine {
    /// Model of the CPU.
    pub(super) cpu: String,
    /// CPUs that this process may use.
    pub(super) cores: usize,
    /// Release of the kernel.
    pub(super) kernel: String,
    /// Memory of the machine.
    pub(super) memory_kib: u64,
    /// When it began, in seconds since 1970.
    pub(super) started_s: u64,
    /// The command line.
    pub(super) command: String,
    /// What answered the requests.
    pub(super) backend: String,
    /// Versions of the programs that took part.
    pub(super) versions: BTreeMap<String, String>,
    /// Whether the caller was root.
    pub(super) root: bool,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Through what.
    pub(super) mode: Mode,
    /// What.
    pub(super) cell: Cell,
    /// Which round, from 1.
    pub(super) round: u32,
    /// Seconds that were counted.
    pub(super) seconds: f64,
    /// Whole answers that came while counting, connections held, or nothing for bulk.
    pub(super) done: u64,
    /// Bytes of bulk.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) bytes: u64,
    /// Failures by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) errors: BTreeMap<String, u64>,
    /// Requests that were due and not sent in time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) unsent: u64,
    /// Of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) latency: Option<Latency>,
    /// What each process spent.
    pub(super) costs: Vec<Cost>,
}

/// Latency in microseconds, from when a request was due.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Latency {
    /// Median.
    pub(super) p50_us: u64,
    /// 90 %.
    pub(super) p90_us: u64,
    /// 99 %.
    pub(super) p99_us: u64,
    /// 99.9 %.
    pub(super) p999_us: u64,
    /// The longest.
    pub(super) max_us: u64,
    /// Upper bound, count.
    pub(super) histogram: Vec<(u64, u64)>,
}

impl Sample {
    /// Requests, or connections, per second.
    pub(super) fn rate(&self) -> f64 {
        self.done as f64 / self.seconds.max(0.001)
    }

    /// Whether the rate that was asked for could not be held.
    pub(super) fn is_saturated(&self) -> bool {
        let Some(rate) = self.cell.asked_rate() else { return false };
        let due = f64::from(rate) * self.seconds;
        self.rate() < f64::from(rate) * HELD || self.unsent as f64 > due * (1.0 - HELD)
    }
}

/// Part of a rate that must be reached for it to count as held.
const HELD: f64 = 0.98;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Records for tests.
#[cfg(test)]
pub(super) mod sample {
    use super::*;
    use crate::latency::cost::Part;

    /// A run without samples.
    pub(in crate::latency) fn record() -> Record {
        Record {
            machine: Machine {
                cpu: "a CPU & more".to_owned(),
                cores: 2,
                kernel: "6.1".to_owned(),
                memory_kib: 1 << 20,
                started_s: 0,
                command: "cargo bench".to_owned(),
                backend: "nginx".to_owned(),
                versions: BTreeMap::new(),
                root: false,
            },
            secs: 1.0,
            rounds: 1,
            missing: BTreeMap::new(),
            failed: BTreeMap::new(),
            no_syscalls: Some("needs root".to_owned()),
            syscalls: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// `done` answers in a second, with a proxy on each side unless the mode has none.
    pub(in crate::latency) fn closed(mode: Mode, cell: Cell, done: u64) -> Sample {
        let parts = match mode {
            Mode::Direct | Mode::Library => vec![Part::Client, Part::Server],
            _ => vec![Part::Client, Part::Near, Part::Far, Part::Server],
        };
        let cost = |part| Cost {
            part,
            user_us: 10.0 * done as f64,
            kernel_us: 30.0 * done as f64,
            waits: done,
            preemptions: 0,
            rss_before_kib: 10 << 10,
            rss_kib: 12 << 10,
            anonymous_kib: 8 << 10,
            pss_kib: 11 << 10,
        };
        let latency = Latency {
            p50_us: 100,
            p90_us: 200,
            p99_us: 400,
            p999_us: 900,
            max_us: 1000,
            histogram: vec![(100, done / 2), (400, done - done / 2)],
        };
        Sample {
            mode,
            cell,
            round: 1,
            seconds: 1.0,
            done,
            bytes: 0,
            errors: BTreeMap::new(),
            unsent: 0,
            latency: Some(latency),
            costs: parts.into_iter().map(cost).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut record = sample::record();
        let cell = Cell::Open { rate: 3200, connections: 16 };
        record.samples.push(sample::closed(Mode::CulvertL4, cell, 3200));
        record.samples.push(sample::closed(Mode::Direct, cell, 3000));
        let json = record.to_json().unwrap();
        let read: Record = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&record).unwrap());
        assert_eq!(read.modes(), [Mode::Direct, Mode::CulvertL4]);
        assert_eq!(
            read.samples.iter().map(Sample::is_saturated).collect::<Vec<_>>(),
            [false, true]
        );
    }
}
