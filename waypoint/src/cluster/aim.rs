//! What requests are sent to.

use std::sync::Arc;

use shared::mesh::{Destination, Service, Subset, TrafficPolicy};

/// A port of a service, or of a subset of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim<'m> {
    pub(crate) service: &'m Arc<Service>,
    pub(crate) port: u16,
    /// Some of the endpoints, which have policies of their own.
    pub(crate) subset: Option<&'m Subset>,
}

impl<'m> Aim<'m> {
    /// All endpoints.
    pub(crate) fn whole(service: &'m Arc<Service>, port: u16) -> Self {
        Self { service, port, subset: None }
    }

    /// What its rule says; none where there is no rule.
    pub(crate) fn policy(&self) -> Option<&'m Arc<TrafficPolicy>> {
        match self.subset {
            Some(subset) => Some(subset.scope.of_port(self.port)),
            None => self.service.policy(self.port, None),
        }
    }

    /// What is known of it outlives one picture of the mesh under this name.
    pub(crate) fn destination(&self) -> Destination {
        Destination {
            service: self.service.key.clone(),
            port: self.port,
            subset: self.subset.map(|subset| Arc::clone(&subset.name)),
        }
    }
}
