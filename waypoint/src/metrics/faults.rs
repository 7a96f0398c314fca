//! Failures that were made on purpose, counted.

use prometheus::{IntCounterVec, Opts};
use shared::mesh::Service;
use shared::telemetry::metrics::{Error, Registry};

/// What was done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It waited.
    Delay,
    /// It was answered with a failure.
    Abort,
}

/// Counts them. Cheap to clone; they are for tests, so all workers share the counters.
#[derive(Debug, Clone)]
pub struct Faults(IntCounterVec);

impl Faults {
    /// Registers the family.
    ///
    /// # Errors
    /// It is registered already.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let help = "Requests that were delayed or aborted on purpose.";
        let labels = ["kind", "destination_service", "destination_service_namespace"];
        let counters = IntCounterVec::new(Opts::new("culvert_faults_total", help), &labels)?;
        registry.register(counters.clone())?;
        Ok(Self(counters))
    }

    /// Counts one of a request to `service`; without one, a workload was asked for by its address.
    pub fn count(&self, kind: FaultKind, service: Option<&Service>) {
        let kind = match kind {
            FaultKind::Delay => "delay",
            FaultKind::Abort => "abort",
        };
        let (host, namespace) = service.map_or(("unknown", "unknown"), |service| {
            (&service.key.hostname, &service.key.namespace)
        });
        self.0.with_label_values(&[kind, host, namespace]).inc();
    }
}
