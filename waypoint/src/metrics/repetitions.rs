//! `culvert_retries_total`: requests that were sent again, and those that were not, and why.

use prometheus::{IntCounterVec, Opts};
use shared::mesh::Service;
use shared::telemetry::metrics::{Error, Registry};

/// What became of the wish to send a request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repetition {
    /// Sent again: it was not delivered, or its method is idempotent.
    Safe,
    /// Sent again because the route's owner allows it.
    OptedIn,
    /// Not sent again: it may have been delivered, or is no longer whole.
    RefusedUnsafe,
    /// Not sent again: too many were lately.
    BudgetExhausted,
}

impl Repetition {
    fn label(self) -> &'static str {
        match self {
            Self::Safe => "retried_safe",
            Self::OptedIn => "retried_opted_in",
            Self::RefusedUnsafe => "refused_unsafe",
            Self::BudgetExhausted => "budget_exhausted",
        }
    }
}

/// Counts them. Cheap to clone; they are rare, so all workers share the counters.
#[derive(Debug, Clone)]
pub struct Repetitions(IntCounterVec);

impl Repetitions {
    /// Registers the family.
    ///
    /// # Errors
    /// It is registered already.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let help = "Requests that were sent again, or were not and why.";
        let labels = ["result", "destination_service", "destination_service_namespace"];
        let counters = IntCounterVec::new(Opts::new("culvert_retries_total", help), &labels)?;
        registry.register(counters.clone())?;
        Ok(Self(counters))
    }

    /// Counts one to `service`; without one, a workload was asked for by its address.
    pub fn count(&self, repetition: Repetition, service: Option<&Service>) {
        let (host, namespace) = service.map_or(("unknown", "unknown"), |service| {
            (&service.key.hostname, &service.key.namespace)
        });
        self.0.with_label_values(&[repetition.label(), host, namespace]).inc();
    }
}
