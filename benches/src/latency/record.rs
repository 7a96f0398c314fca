//! What is kept of a run: everything that was measured, sample by sample. Medians and comparisons
//! are computed from it, never stored.

use std::collections::BTreeMap;

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
    /// Every measurement, in the order in which they were made.
    pub(super) samples: Vec<Sample>,
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
        let Cell::Open { rate, .. } = self.cell else { return false };
        self.rate() < f64::from(rate) * HELD || self.unsent > u64::from(rate) / 100
    }
}

/// Part of a rate that must be reached for it to count as held.
const HELD: f64 = 0.98;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
