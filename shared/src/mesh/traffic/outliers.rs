//! `outlierDetection`, and the detectors that a rule's annotations add to it.

use std::time::Duration;

use serde::Serialize;

/// When endpoints are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlierDetection {
    /// Answers 500 to 599 in a row that eject; `None` for never.
    pub consecutive_5xx: Option<u32>,
    /// Answers 502, 503 or 504 in a row that eject.
    pub consecutive_gateway_errors: Option<u32>,
    /// Connections in a row that fail and eject; only where they are counted apart (`split`).
    pub consecutive_local_failures: Option<u32>,
    /// Whether what fails here is counted apart from what the endpoint answers.
    pub split: bool,
    /// How often the healthy are forgiven, and endpoints compared with each other.
    pub interval: Duration,
    /// How long the first ejection lasts; each further one lasts longer by this.
    pub base_ejection: Duration,
    /// How much of the endpoints may be ejected at a time, in percent.
    pub max_ejection_percent: u8,
    /// Below this share of endpoints that are not ejected, ejections are ignored; 0 is never.
    pub min_health_percent: u8,
    /// Ejects who fails more often than the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
    /// Ejects who is slower than the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<SlowAnswers>,
}

/// `culvert.dev/outlier-success-rate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SuccessRate {
    /// Endpoints that must have been asked enough. 5; fewer say little about what is usual.
    pub minimum_hosts: u32,
    /// What is enough. 100; with less a few failures by chance look like many.
    pub request_volume: u32,
    /// Thousandths of the standard deviation that a rate must be below the mean. 1,900.
    pub stdev_factor: u32,
}

impl Default for SuccessRate {
    /// Envoy's.
    fn default() -> Self {
        Self { minimum_hosts: 5, request_volume: 100, stdev_factor: 1_900 }
    }
}

/// `culvert.dev/outlier-latency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlowAnswers {
    /// Endpoints that must have answered enough. 3; with two nobody knows which one is usual.
    pub minimum_hosts: u32,
    /// What is enough. 20.
    pub request_volume: u32,
    /// Thousandths of the usual time that an endpoint must take. 5,000; below 2,000 a machine that
    /// is busy for a moment is ejected.
    pub factor: u32,
    /// Answers that take less are never slow. 10 ms: what a network does is no fault of an endpoint.
    pub floor: Duration,
}

impl Default for SlowAnswers {
    fn default() -> Self {
        let floor = Duration::from_millis(10);
        Self { minimum_hosts: 3, request_volume: 20, factor: 5_000, floor }
    }
}
