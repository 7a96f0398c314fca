//! What came of the scenarios.

use std::collections::BTreeMap;

use harness::role::load;
use serde::{Deserialize, Serialize};

/// One scenario through one data plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) scenario: String,
    pub(super) mode: String,
    pub(super) requests: u64,
    /// Those that were not answered with 200.
    pub(super) failed: u64,
    /// Of them, by kind.
    pub(super) errors: BTreeMap<String, u64>,
    /// Requests that applications executed more than once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) twice: Option<u64>,
    /// Requests that failed for their client, and were executed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failed_but_executed: Option<u64>,
    /// Requests that came to the applications at the end of the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attempts: Option<u64>,
}

impl Row {
    /// What a load generator tells.
    pub(super) fn of_load(report: &load::Report) -> Self {
        let failed = report.failed();
        let errors = report.errors.clone();
        Self { requests: report.ok + failed, failed, errors, ..Self::default() }
    }

    /// Adds what others asked of the same.
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
    }
}

/// A run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) machine: String,
    /// Envoy's version; none where it is not installed.
    pub(super) envoy: Option<String>,
    pub(super) secs: f64,
    pub(super) rows: Vec<Row>,
    /// Modes without their program, and why scenarios could not be run.
    pub(super) missing: Vec<String>,
    pub(super) failed: Vec<String>,
}
