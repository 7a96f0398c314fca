//! The `istio_requests_*` families: which requests were answered how, between whom.
//!
//! Invariants: a request is counted once, when its response has ended; a worker counts in plain
//! numbers of its own and shows them about every second; an empty label reads `unknown`.
//! Source: Istio's standard metrics, in the order of a waypoint (spec L7 §5.1).

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use prometheus::local::{LocalHistogram, LocalIntCounter};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};
use tokio::time::Instant;

use super::metrics::{Error, Registry};
use super::traffic::{Party, Security, Service};

/// Names, in the order in which they are given out.
const NAMES: [&str; 26] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
    "route",
];

/// Envoy's default bounds, for times in milliseconds and for sizes in bytes alike.
const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// A worker forgets label sets that it has not used for this long.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Counts the requests of this process. Cheap to clone; each worker makes its own [`OnWorker`].
#[derive(Clone, Debug)]
pub struct Requests {
    total: IntCounterVec,
    duration: HistogramVec,
    request_bytes: HistogramVec,
    response_bytes: HistogramVec,
}

/// The labels of a request. Empty text reads `unknown`.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// Who asked.
    pub source: Party<'a>,
    /// Who answered.
    pub destination: Party<'a>,
    /// The service that was meant.
    pub service: Service<'a>,
    /// Whether the client proved who it is.
    pub security: Security,
    /// `http` or `grpc`.
    pub protocol: &'a str,
    /// Decimal; 0 when there was none.
    pub code: &'a str,
    /// Decimal; empty unless it is gRPC.
    pub grpc_status: &'a str,
    /// Envoy's short word for what went wrong, `-` for nothing.
    pub flags: &'a str,
    /// Namespace and name of the route that matched, empty for none.
    pub route: &'a str,
}

/// What is measured of a request.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// From its head to the end of its response.
    pub duration: Duration,
    /// Bytes of its body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
}

impl Requests {
    /// Registers the families.
    ///
    /// # Errors
    /// They are registered already.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let histogram = |name: &str, help: &str| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(BOUNDS.to_vec()), &NAMES)
        };
        let requests = Self {
            total: IntCounterVec::new(
                Opts::new("istio_requests_total", "Requests that were answered."),
                &NAMES,
            )?,
            duration: histogram(
                "istio_request_duration_milliseconds",
                "Time from a request to the end of its response.",
            )?,
            request_bytes: histogram("istio_request_bytes", "Bytes of request bodies.")?,
            response_bytes: histogram("istio_response_bytes", "Bytes of response bodies.")?,
        };
        registry.register(requests.total.clone())?;
        registry.register(requests.duration.clone())?;
        registry.register(requests.request_bytes.clone())?;
        registry.register(requests.response_bytes.clone())?;
        Ok(requests)
    }

    /// The side that a worker counts on. Call [`OnWorker::flush`] about every second.
    #[must_use]
    pub fn on_worker(&self) -> OnWorker {
        OnWorker { requests: self.clone(), sets: Rc::default() }
    }
}

/// Counts on one worker. Cheap to clone, stays on its thread.
#[derive(Clone, Debug)]
pub struct OnWorker {
    requests: Requests,
    /// By the hash of the labels, because a look-up has only borrowed ones.
    sets: Rc<RefCell<HashMap<u64, Vec<Set>>>>,
}

/// One label set on one worker.
#[derive(Debug)]
struct Set {
    labels: Box<[Box<str>]>,
    total: LocalIntCounter,
    duration: LocalHistogram,
    request_bytes: LocalHistogram,
    response_bytes: LocalHistogram,
    used: Instant,
}

impl OnWorker {
    /// Counts a request that has ended.
    #[expect(clippy::cast_precision_loss, reason = "histograms have no other numbers")]
    pub fn count(&self, labels: &Labels<'_>, measured: Measured) {
        let values = values(labels);
        let mut hasher = DefaultHasher::new();
        values.hash(&mut hasher);
        let mut sets = self.sets.borrow_mut();
        let known = sets.entry(hasher.finish()).or_default();
        let same = |set: &Set| set.labels.iter().zip(&values).all(|(one, other)| **one == **other);
        let at = known.iter().position(same).unwrap_or_else(|| {
            known.push(self.set(&values));
            known.len() - 1
        });
        let set = &mut known[at];
        set.used = Instant::now();
        set.total.inc();
        set.duration.observe(measured.duration.as_secs_f64() * 1_000.0);
        set.request_bytes.observe(measured.request_bytes as f64);
        set.response_bytes.observe(measured.response_bytes as f64);
    }

    /// Makes all numbers visible now, and forgets label sets that are out of use.
    pub fn flush(&self) {
        self.sets.borrow_mut().retain(|_, sets| {
            sets.retain_mut(|set| {
                set.total.flush();
                set.duration.flush();
                set.request_bytes.flush();
                set.response_bytes.flush();
                set.used.elapsed() < FORGET_AFTER
            });
            !sets.is_empty()
        });
    }

    fn set(&self, values: &[&str; NAMES.len()]) -> Set {
        let shown = values.map(|value| if value.is_empty() { "unknown" } else { value });
        // An empty gRPC status says that it is no gRPC.
        let mut shown = shown;
        shown[GRPC_STATUS] = values[GRPC_STATUS];
        Set {
            labels: values.iter().map(|value| Box::from(*value)).collect(),
            total: self.requests.total.with_label_values(&shown).local(),
            duration: self.requests.duration.with_label_values(&shown).local(),
            request_bytes: self.requests.request_bytes.with_label_values(&shown).local(),
            response_bytes: self.requests.response_bytes.with_label_values(&shown).local(),
            used: Instant::now(),
        }
    }
}

/// Where `grpc_response_status` stands in [`NAMES`].
const GRPC_STATUS: usize = 22;

fn values<'a>(labels: &Labels<'a>) -> [&'a str; NAMES.len()] {
    let (from, to) = (&labels.source, &labels.destination);
    [
        "waypoint",
        from.workload,
        from.canonical_service,
        from.canonical_revision,
        from.namespace,
        from.principal,
        from.canonical_service,
        from.canonical_revision,
        from.cluster,
        to.workload,
        to.namespace,
        to.principal,
        to.canonical_service,
        to.canonical_revision,
        labels.service.host,
        to.canonical_service,
        to.canonical_revision,
        labels.service.name,
        labels.service.namespace,
        to.cluster,
        labels.protocol,
        labels.code,
        labels.grpc_status,
        labels.flags,
        match labels.security {
            Security::MutualTls => "mutual_tls",
            Security::Unknown => "none",
        },
        labels.route,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Exposition;

    fn labels() -> Labels<'static> {
        Labels {
            source: Party { workload: "client", namespace: "a", ..Party::default() },
            destination: Party::default(),
            service: Service { host: "web.a", namespace: "a", name: "web" },
            security: Security::MutualTls,
            protocol: "http",
            code: "200",
            grpc_status: "",
            flags: "-",
            route: "a/canary",
        }
    }

    #[test]
    fn a_request_is_visible_after_a_flush_with_all_its_labels() {
        let registry = Registry::default();
        let worker = Requests::new(&registry).unwrap().on_worker();
        let measured = Measured {
            duration: Duration::from_millis(7),
            request_bytes: 0,
            response_bytes: 1_024,
        };
        worker.count(&labels(), measured);
        worker.count(&labels(), measured);
        let text = || registry.expose(Exposition::accepted_by(None)).unwrap();
        worker.flush();
        let text = text();
        for part in [
            "istio_requests_total{",
            "reporter=\"waypoint\"",
            "source_workload=\"client\"",
            "destination_workload=\"unknown\"",
            "grpc_response_status=\"\"",
            "route=\"a/canary\"",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let total = text.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
        assert!(total.ends_with(" 2"), "{total}");
        assert!(text.contains("istio_response_bytes_sum"), "{text}");
    }
}
