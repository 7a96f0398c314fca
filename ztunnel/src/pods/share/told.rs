//! Who is held back: by a metric, and in the log.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{CounterVec, IntCounterVec, Opts};
use shared::workers::Usage;
use tokio::time::Instant;

use crate::pods::PodName;

/// What is counted of the shares of all pods.
#[derive(Debug, Clone)]
pub(in crate::pods) struct Metrics {
    waits: IntCounterVec,
    seconds: CounterVec,
}

impl Metrics {
    pub(in crate::pods) fn new() -> Self {
        let waits = Opts::new(
            "culvert_pod_limit_waits_total",
            "Times a pod was held back at a limit of its share",
        );
        let seconds = Opts::new(
            "culvert_pod_worker_seconds_total",
            "Time that the workers spent on a pod's connections",
        );
        Self {
            waits: IntCounterVec::new(waits, &["namespace", "pod", "limit"])
                .expect("the name is legal"),
            seconds: CounterVec::new(seconds, &["namespace", "pod"]).expect("the name is legal"),
        }
    }

    pub(in crate::pods) fn collectors(&self) -> [Box<dyn Collector>; 2] {
        [Box::new(self.waits.clone()), Box::new(self.seconds.clone())]
    }
}

/// Names a pod that is at a limit.
pub(super) struct Told {
    pod: PodName,
    metrics: Metrics,
    last: Mutex<Option<Instant>>,
}

/// Which limit a pod waits at, as metric and log have it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    Connections,
    PerSecond,
    Windows,
    Workers,
    Turn,
}

/// A pod that stays at a limit is told of this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

impl Told {
    pub(super) fn new(pod: PodName, metrics: Metrics) -> Self {
        Self { pod, metrics, last: Mutex::new(None) }
    }

    pub(super) fn hear(&self, usage: Usage) {
        match usage {
            Usage::Ran(time) => {
                let PodName { namespace, name, .. } = &self.pod;
                let seconds = self.metrics.seconds.with_label_values(&[&**namespace, &**name]);
                seconds.inc_by(time.as_secs_f64());
            }
            // Everyday where several pods have something to do: counted, not told.
            Usage::TurnsOver(times) => self.count(Limit::Turn, times),
            Usage::KeptBack => self.tell(Limit::Workers),
        }
    }

    #[cfg(test)]
    pub(super) fn waits(&self, limit: &str) -> u64 {
        let PodName { namespace, name, .. } = &self.pod;
        self.metrics.waits.with_label_values(&[&**namespace, &**name, limit]).get()
    }

    fn count(&self, limit: Limit, times: u64) {
        let PodName { namespace, name, .. } = &self.pod;
        self.metrics.waits.with_label_values(&[&**namespace, &**name, limit.name()]).inc_by(times);
    }

    pub(super) fn tell(&self, limit: Limit) {
        self.count(limit, 1);
        let now = Instant::now();
        let mut last = self.last.lock();
        if last.is_none_or(|last| now - last >= TELL_EVERY) {
            *last = Some(now);
            tracing::warn!(pod = %self.pod, limit = limit.name(),
                "the pod is at a limit of its share, {}", limit.effect());
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // Pods come and go: what is said of them must not add up.
        let PodName { namespace, name, .. } = &self.pod;
        let _ = self.metrics.seconds.remove_label_values(&[&**namespace, &**name]);
        for limit in Limit::ALL {
            let labels = [&**namespace, &**name, limit.name()];
            let _ = self.metrics.waits.remove_label_values(&labels);
        }
    }
}

impl Limit {
    const ALL: [Self; 5] =
        [Self::Connections, Self::PerSecond, Self::Windows, Self::Workers, Self::Turn];

    fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::PerSecond => "per_second",
            Self::Windows => "window_bytes",
            Self::Workers => "workers",
            Self::Turn => "turn",
        }
    }

    fn effect(self) -> &'static str {
        match self {
            Self::Connections | Self::PerSecond => "its new connections wait",
            Self::Windows => "its streams get no more window",
            Self::Workers => "its new connections stay on workers that it keeps busy",
            Self::Turn => "its tasks wait for those of others",
        }
    }
}
