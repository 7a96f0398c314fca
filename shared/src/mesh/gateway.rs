//! Whose waypoint a workload is.

use crate::mesh::{GatewayAddress, GatewayDestination, Mesh, Service, ServiceKey, Workload};

impl Service {
    /// Every waypoint that the service may be reached through.
    pub fn waypoints(&self) -> impl Iterator<Item = &GatewayAddress> {
        let weighted = self.weighted_waypoints.iter().map(|weighted| &weighted.destination);
        self.waypoint.iter().chain(weighted)
    }
}

impl Mesh {
    /// Whether `workload` is itself an instance of `gateway`.
    pub fn is_instance(&self, workload: &Workload, gateway: &GatewayAddress) -> bool {
        match &gateway.destination {
            GatewayDestination::Hostname(key) => match self.service(key) {
                Some(service) => is_endpoint(workload, &service.key),
                None => self
                    .workload_by_hostname(&key.namespace, &key.hostname)
                    .is_some_and(|known| known.uid == workload.uid),
            },
            GatewayDestination::Address(at) => {
                match self.service_by_vip(&at.network, at.address, None) {
                    Some(service) => is_endpoint(workload, &service.key),
                    None => {
                        at.network == workload.network && workload.addresses.contains(&at.address)
                    }
                }
            }
        }
    }
}

/// The services that `workload` is an endpoint of include `key`.
fn is_endpoint(workload: &Workload, key: &ServiceKey) -> bool {
    workload.services.iter().any(|(service, _)| service == key)
}
