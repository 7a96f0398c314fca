//! What all workers know together about destinations with a rule, and its metrics.
//!
//! Invariants: looked up when a cluster is made, never per request; one that has no rule any more is
//! forgotten.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use serde_json::{Value, json};
use shared::mesh::{Destination, Mesh};
use shared::telemetry::metrics::{Error, Registry, family};
use tokio::time::Instant;

use crate::cluster::{Adaptive, Circuit, Outliers, Reason, Resource, State};

/// How one port of a service, or of a subset of it, stands. Shared by all workers.
#[derive(Debug)]
pub struct Standing {
    destination: Destination,
    /// Its use.
    pub circuit: Arc<Circuit>,
    /// Its endpoints.
    pub outliers: Outliers,
    /// How many requests at a time its answers allow.
    pub adaptive: Adaptive,
    retired: AtomicBool,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Destination { service, port, subset } = &self.destination;
        write!(f, "{}:{port}", service.hostname)?;
        subset.as_ref().map_or(Ok(()), |subset| write!(f, " subset {subset}"))
    }
}

impl Standing {
    /// Whether it was forgotten.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    fn dump(&self, now: Instant) -> Value {
        let used = Resource::ALL.map(|one| (one.name(), self.circuit.used(one)));
        let refused = Resource::ALL.map(|one| (one.name(), self.circuit.refused(one)));
        let state = |state| match state {
            State::In => "in",
            State::Probed => "probed",
            State::Ejected => "ejected",
        };
        let endpoints =
            self.outliers.all(now).into_iter().map(|(uid, one)| (uid.to_string(), state(one)));
        let Destination { service, port, subset } = &self.destination;
        json!({
            "service": service.to_string(),
            "port": port,
            "subset": subset.as_deref(),
            "used": BTreeMap::from(used),
            "overflow": BTreeMap::from(refused),
            "concurrencyLimit": self.adaptive.limit(),
            "endpoints": endpoints.collect::<BTreeMap<_, _>>(),
        })
    }
}

type ByDestination = BTreeMap<Destination, Arc<Standing>>;

/// All that have a rule. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Standings {
    all: Arc<Mutex<ByDestination>>,
}

impl Standings {
    /// The one of a destination.
    pub fn of(&self, destination: &Destination) -> Arc<Standing> {
        let mut all = self.all.lock();
        let standing = all.entry(destination.clone()).or_insert_with(|| {
            Arc::new(Standing {
                destination: destination.clone(),
                circuit: Arc::default(),
                outliers: Outliers::new(Instant::now()),
                adaptive: Adaptive::default(),
                retired: AtomicBool::new(false),
            })
        });
        Arc::clone(standing)
    }

    /// Forgets those that have no rule in `mesh`.
    pub fn prune(&self, mesh: &Mesh) {
        self.all.lock().retain(|destination, standing| {
            let stays = has_policy(mesh, destination);
            standing.retired.store(!stays, Ordering::Relaxed);
            stays
        });
    }

    /// For `/config_dump`.
    pub fn dump(&self) -> Value {
        let now = Instant::now();
        self.all.lock().values().map(|standing| standing.dump(now)).collect()
    }

    /// Makes their numbers visible.
    ///
    /// # Errors
    /// They are visible already.
    pub fn register(&self, registry: &Registry) -> Result<(), Error> {
        let description = |(name, help, _): &Family| {
            Desc::new((*name).to_owned(), (*help).to_owned(), Vec::new(), Default::default())
        };
        let families = FAMILIES.iter().map(description).collect::<Result<_, _>>()?;
        registry.register(Shown { standings: self.clone(), families })
    }
}

/// Whether a rule says something about a destination.
pub(crate) fn has_policy(mesh: &Mesh, destination: &Destination) -> bool {
    let Destination { service, port, subset } = destination;
    let service = mesh.service(service);
    service.is_some_and(|service| service.policy(*port, subset.as_deref()).is_some())
}

type Family = (&'static str, &'static str, MetricType);

const FAMILIES: [Family; 6] = [
    ("culvert_circuit_used", "Places of a limited resource that are taken.", MetricType::GAUGE),
    (
        "culvert_circuit_overflow_total",
        "Times there was no place left of a limited resource.",
        MetricType::COUNTER,
    ),
    ("culvert_outlier_ejections_active", "Endpoints that are left out.", MetricType::GAUGE),
    ("culvert_outlier_ejections_total", "Endpoints ejected so far.", MetricType::COUNTER),
    (
        "culvert_outlier_ejections_overflow_total",
        "Ejections that maxEjectionPercent forbade.",
        MetricType::COUNTER,
    ),
    (
        "culvert_concurrency_limit",
        "Requests at a time that the destination's answers allow.",
        MetricType::GAUGE,
    ),
];

struct Shown {
    standings: Standings,
    families: Vec<Desc>,
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all: Vec<_> = self.standings.all.lock().values().cloned().collect();
        let mut samples: [Vec<Metric>; 6] = Default::default();
        for one in &all {
            for resource in Resource::ALL {
                let label = Some(("resource", resource.name()));
                samples[0].push(gauge(one, label, one.circuit.used(resource).into()));
                samples[1].push(counter(one, label, one.circuit.refused(resource)));
            }
            samples[2].push(gauge(one, None, one.outliers.out().into()));
            for reason in Reason::ALL {
                let label = Some(("reason", reason.name()));
                samples[3].push(counter(one, label, one.outliers.ejected(reason)));
            }
            samples[4].push(counter(one, None, one.outliers.overflow()));
            let limit = one.adaptive.limit();
            samples[5].extend(limit.map(|limit| gauge(one, None, limit.into())));
        }
        let shown = FAMILIES.iter().zip(samples);
        shown.map(|((name, help, kind), samples)| family(name, help, *kind, samples)).collect()
    }
}

fn gauge(standing: &Standing, more: Option<(&str, &str)>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = labelled(standing, more);
    metric.set_gauge(gauge);
    metric
}

#[expect(clippy::cast_precision_loss, reason = "the exposition has no other numbers")]
fn counter(standing: &Standing, more: Option<(&str, &str)>, value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = labelled(standing, more);
    metric.set_counter(counter);
    metric
}

fn labelled(standing: &Standing, more: Option<(&str, &str)>) -> Metric {
    let Destination { service, port, subset } = &standing.destination;
    let port = port.to_string();
    let own = [
        ("destination_service", &*service.hostname),
        ("destination_service_namespace", &*service.namespace),
        ("port", &*port),
    ];
    let subset = subset.as_deref().map(|subset| ("subset", subset));
    let labels = own.into_iter().chain(subset).chain(more).map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value.to_owned());
        label
    });
    let mut metric = Metric::default();
    metric.set_label(labels.collect());
    metric
}
