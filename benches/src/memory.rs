//! The memory of a process, as the kernel counts it.

use std::fs;

use serde::{Deserialize, Serialize};

/// Memory of a process in KiB.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Resident.
    pub(crate) rss_kib: u64,
    /// Of that, what no file backs: memory that no other process can share.
    pub(crate) anonymous_kib: u64,
    /// Resident, with shared pages split among those who share them.
    pub(crate) pss_kib: u64,
}

impl Memory {
    /// Zero when the process is gone.
    pub(crate) fn read(pid: u32) -> Self {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let field = |name| field(&rollup, name).unwrap_or_default();
        Self { rss_kib: field("Rss:"), anonymous_kib: field("Anonymous:"), pss_kib: field("Pss:") }
    }

    /// The most that was resident since `forget_peak`; zero when the process is gone.
    pub(crate) fn peak_kib(pid: u32) -> u64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        field(&status, "VmHWM:").unwrap_or_default()
    }

    /// From now on the peak is a new one: proc_pid_clear_refs(5).
    pub(crate) fn forget_peak(pid: u32) -> std::io::Result<()> {
        fs::write(format!("/proc/{pid}/clear_refs"), "5")
    }
}

/// The number after `name` in a file of `/proc`.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
