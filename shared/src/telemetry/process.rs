//! Metrics of the process itself, measured when asked.

use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use rustix::process::{Resource, getrlimit};

use super::metrics::{Error, Registry, family};
use crate::workers::Workers;

/// Registers `istio_build`, the descriptors of the process and the life of its workers.
///
/// # Errors
/// They are registered already.
pub fn register(
    registry: &Registry,
    component: &str,
    tag: &str,
    workers: &Workers,
) -> Result<(), Error> {
    let build =
        IntGaugeVec::new(Opts::new("istio_build", "Which build this is."), &["component", "tag"])?;
    build.with_label_values(&[component, tag]).set(1);
    registry.register(build)?;
    registry.register(Descriptors::new()?)?;
    registry.register(WorkerLife::new(workers.clone())?)
}

struct Descriptors {
    families: Vec<Desc>,
}

impl Descriptors {
    const OPEN: (&str, &str) = ("process_open_fds", "File descriptors in use.");
    const MAX: (&str, &str) = ("process_max_fds", "File descriptors that may be in use.");

    fn new() -> Result<Self, Error> {
        Ok(Self { families: descriptions(&[Self::OPEN, Self::MAX], &[])? })
    }
}

impl Collector for Descriptors {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Reading the directory takes one descriptor itself.
        let open =
            std::fs::read_dir("/proc/self/fd").map(|entries| entries.count().saturating_sub(1));
        let max = getrlimit(Resource::Nofile).current;
        let mut families = Vec::new();
        if let Ok(open) = open {
            families.push(gauge(Self::OPEN, vec![number(open as f64)]));
        }
        families.push(gauge(Self::MAX, vec![number(max.map_or(f64::INFINITY, |max| max as f64))]));
        families
    }
}

struct WorkerLife {
    workers: Workers,
    families: Vec<Desc>,
}

impl WorkerLife {
    const WORKERS: (&str, &str) =
        ("tokio_num_workers", "Data-plane workers that are active (unstable).");
    const TASKS: (&str, &str) =
        ("tokio_num_alive_tasks", "Tasks given to workers that have not ended (unstable).");
    const BUSY: (&str, &str) = (
        "tokio_worker_total_busy_duration_seconds_total",
        "Time a worker spent running tasks (unstable).",
    );
    const PARKS: (&str, &str) =
        ("tokio_worker_park_count_total", "Times a worker went to sleep (unstable).");
    const TURNS: (&str, &str) = (
        "tokio_worker_park_unpark_count_total",
        "Times a worker went to sleep or woke (unstable).",
    );

    fn new(workers: Workers) -> Result<Self, Error> {
        let mut families = descriptions(&[Self::WORKERS, Self::TASKS], &[])?;
        families.extend(descriptions(&[Self::BUSY, Self::PARKS, Self::TURNS], &["worker"])?);
        Ok(Self { workers, families })
    }
}

impl Collector for WorkerLife {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let activity = self.workers.activity();
        let live: usize = activity.iter().map(|worker| worker.live).sum();
        let each = |value: fn(&crate::workers::Activity) -> f64| {
            activity.iter().map(|worker| count(worker.id.index(), value(worker))).collect()
        };
        let counter =
            |(name, help): (&str, &str), samples| family(name, help, MetricType::COUNTER, samples);
        vec![
            gauge(Self::WORKERS, vec![number(activity.len() as f64)]),
            gauge(Self::TASKS, vec![number(live as f64)]),
            counter(Self::BUSY, each(|worker| worker.busy.as_secs_f64())),
            counter(Self::PARKS, each(|worker| worker.parks as f64)),
            counter(Self::TURNS, each(|worker| worker.parks_and_unparks as f64)),
        ]
    }
}

fn descriptions(families: &[(&str, &str)], labels: &[&str]) -> Result<Vec<Desc>, Error> {
    families.iter().map(|(name, help)| describe(name, help, labels)).collect()
}

/// What the registry must know of a family to keep names unique.
pub(super) fn describe(name: &str, help: &str, labels: &[&str]) -> Result<Desc, Error> {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    Ok(Desc::new(name.to_owned(), help.to_owned(), labels, std::collections::HashMap::new())?)
}

fn gauge((name, help): (&str, &str), samples: Vec<Metric>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, samples)
}

fn number(value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    Metric::from_gauge(gauge)
}

fn count(worker: usize, value: f64) -> Metric {
    let mut label = LabelPair::default();
    label.set_name("worker".to_owned());
    label.set_value(worker.to_string());
    let mut metric = Metric::from_label(vec![label]);
    let mut counter = Counter::default();
    counter.set_value(value);
    metric.set_counter(counter);
    metric
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::telemetry::metrics::Exposition;
    use crate::workers;

    #[test]
    fn the_process_describes_itself() {
        let workers = Workers::start(workers::Config { limit: 1, ..Default::default() }).unwrap();
        let registry = Registry::default();
        register(&registry, "ztunnel", "1.2", &workers).unwrap();
        let text = registry.expose(Exposition::Prometheus).unwrap();
        for expected in [
            "istio_build{component=\"ztunnel\",tag=\"1.2\"} 1\n",
            "tokio_num_workers 1\n",
            "tokio_num_alive_tasks 0\n",
            "tokio_worker_park_count_total{worker=\"0\"} ",
            "process_open_fds ",
            "process_max_fds ",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
        workers.shutdown(Instant::now());
    }
}
