//! What is said about the pods: dump, readiness, metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntGauge};
use shared::mesh::Uid;
use tokio::sync::watch;

use crate::pods::PodName;
use crate::pods::enrol::Error;
use crate::pods::share;
use crate::redirect::NamespaceId;

/// Where a pod stands. Serialised as Istio's `workloadState` has it, with our own reason.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Served or not yet.
    pub state: State,
    /// Which pod.
    pub info: PodName,
    /// Its namespace, once opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_namespace: Option<NamespaceId>,
    /// Why it is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Whether a pod is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum State {
    /// Not served: being enrolled, or refused and tried again.
    Pending,
    /// Served.
    Up,
}

/// A failure in words.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Stable code.
    pub cause: &'static str,
    /// What is wrong, with its causes.
    pub reason: String,
    /// Whether the node is not ready while it lasts.
    pub blocks_readiness: bool,
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        Self {
            cause: error.cause(),
            reason: error.reason(),
            blocks_readiness: error.blocks_readiness(),
        }
    }
}

/// The state of all pods of this node. Cheap to clone; readable from any thread.
#[derive(Debug, Clone)]
pub struct Status {
    entries: Arc<Mutex<BTreeMap<Uid, Entry>>>,
    ready: Arc<watch::Sender<bool>>,
    metrics: Metrics,
}

#[derive(Debug, Clone)]
struct Metrics {
    active: IntGauge,
    pending: IntGauge,
    started: IntCounter,
    stopped: IntCounter,
    shares: share::Metrics,
}

impl Status {
    pub(super) fn new() -> Self {
        Self {
            entries: Arc::default(),
            ready: Arc::new(watch::Sender::new(false)),
            metrics: Metrics::new(),
        }
    }

    /// Every pod that should be served, by the id of its workload.
    pub fn snapshot(&self) -> BTreeMap<Uid, Entry> {
        self.entries.lock().clone()
    }

    /// True from when the first list of pods was worked off, while no pod waits for something that
    /// this process does. Dropped changes nothing: `false` stays `false`.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// `workload_manager_*` and `culvert_pod_*`, for the process's registry.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let Metrics { active, pending, started, stopped, shares } = self.metrics.clone();
        let own: [Box<dyn Collector>; 4] =
            [Box::new(active), Box::new(pending), Box::new(started), Box::new(stopped)];
        own.into_iter().chain(shares.collectors()).collect()
    }

    /// What is counted of the pods' shares.
    pub(super) fn shares(&self) -> share::Metrics {
        self.metrics.shares.clone()
    }

    /// Publishes the whole picture; `listed` once a list of pods has been seen.
    pub(super) fn publish(&self, entries: BTreeMap<Uid, Entry>, listed: bool) {
        let up = entries.values().filter(|entry| entry.state == State::Up).count();
        let waits = |entry: &Entry| match &entry.problem {
            Some(problem) => problem.blocks_readiness,
            None => entry.state == State::Pending,
        };
        let ready = listed && !entries.values().any(waits);
        self.metrics.active.set(i64::try_from(up).unwrap_or(i64::MAX));
        self.metrics.pending.set(i64::try_from(entries.len() - up).unwrap_or(i64::MAX));
        *self.entries.lock() = entries;
        self.ready.send_if_modified(|current| std::mem::replace(current, ready) != ready);
    }

    pub(super) fn started(&self) {
        self.metrics.started.inc();
    }

    pub(super) fn stopped(&self) {
        self.metrics.stopped.inc();
    }
}

impl Metrics {
    fn new() -> Self {
        let gauge = |name, help| IntGauge::new(name, help).expect("the name is legal");
        let counter = |name, help| IntCounter::new(name, help).expect("the name is legal");
        Self {
            active: gauge("workload_manager_active_proxy_count", "Pods that are served"),
            pending: gauge("workload_manager_pending_proxy_count", "Pods that wait to be served"),
            started: counter("workload_manager_proxies_started_total", "Pods enrolled so far"),
            stopped: counter("workload_manager_proxies_stopped_total", "Pods withdrawn so far"),
            shares: share::Metrics::new(),
        }
    }
}
