//! Waypoints: what their Gateways say, and whose waypoint a workload is.

use std::sync::Arc;

use crate::authz::GatewayKey;
use crate::mesh::change::Effect;
use crate::mesh::{GatewayAddress, GatewayDestination, Mesh, Service, ServiceKey, Workload};

/// What a Gateway says to the waypoint that serves it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Namespace and name.
    pub key: GatewayKey,
    /// Applications are told who their client is, in `x-forwarded-client-cert`.
    pub tells_client: bool,
}

impl Service {
    /// Every waypoint that the service may be reached through.
    pub fn waypoints(&self) -> impl Iterator<Item = &GatewayAddress> {
        let weighted = self.weighted_waypoints.iter().map(|weighted| &weighted.destination);
        self.waypoint.iter().chain(weighted)
    }
}

impl Mesh {
    /// The Gateway with this key.
    pub fn gateway(&self, key: &GatewayKey) -> Option<&Arc<Gateway>> {
        self.gateways.find(|row| order(&row.key).cmp(&order(key)))
    }

    /// All Gateways of waypoints, by namespace and name.
    pub fn gateways(&self) -> impl Iterator<Item = &Arc<Gateway>> {
        self.gateways.iter()
    }

    pub(super) fn put_gateway(&mut self, gateway: Arc<Gateway>) -> Effect {
        if self.gateway(&gateway.key) == Some(&gateway) {
            return Effect::Nothing;
        }
        self.gateways.insert(gateway.clone(), |row| order(&row.key).cmp(&order(&gateway.key)));
        Effect::Picture
    }

    pub(super) fn take_gateway(&mut self, key: &GatewayKey) -> Effect {
        match self.gateways.remove(|row| order(&row.key).cmp(&order(key))) {
            Some(_) => Effect::Picture,
            None => Effect::Nothing,
        }
    }

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

fn order(key: &GatewayKey) -> (&str, &str) {
    (&key.namespace, &key.name)
}

/// The services that `workload` is an endpoint of include `key`.
fn is_endpoint(workload: &Workload, key: &ServiceKey) -> bool {
    workload.services.iter().any(|(service, _)| service == key)
}
