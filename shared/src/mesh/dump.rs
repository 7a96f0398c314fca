//! Workloads and services as `/config_dump` and local files spell them (spec L4 §5.8).

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::authz::{Policy, PolicyKey, StringMatch};
use crate::mesh::{
    Balancing, GatewayDestination, NetworkAddr, PortMap, Service, ServiceKey, Workload,
};

impl fmt::Display for GatewayDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hostname(key) => key.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Serializes as the text that it displays as.
macro_rules! as_text {
    ($($type:ty),*) => { $(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )* };
}

as_text!(GatewayDestination, NetworkAddr, PolicyKey, ServiceKey);

/// A map that leaves out what says nothing.
struct Object<M>(M);

impl<M: SerializeMap> Object<M> {
    fn put(&mut self, key: &str, value: &(impl Serialize + ?Sized)) -> Result<(), M::Error> {
        self.0.serialize_entry(key, value)
    }

    fn some(
        &mut self,
        key: &str,
        value: Option<&(impl Serialize + ?Sized)>,
    ) -> Result<(), M::Error> {
        value.map_or(Ok(()), |value| self.put(key, value))
    }

    fn list<T: Serialize>(&mut self, key: &str, values: &[T]) -> Result<(), M::Error> {
        if values.is_empty() { Ok(()) } else { self.put(key, values) }
    }
}

fn ports(map: &PortMap) -> BTreeMap<u16, u16> {
    map.iter().copied().collect()
}

impl Serialize for Workload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Object(serializer.serialize_map(None)?);
        map.put("uid", &self.uid)?;
        map.put("name", &self.name)?;
        map.put("namespace", self.identity.namespace())?;
        map.put("serviceAccount", self.identity.service_account())?;
        map.put("trustDomain", self.identity.trust_domain().as_str())?;
        map.put("workloadIps", &self.addresses)?;
        map.some("hostname", self.hostname.as_ref())?;
        map.put("protocol", &self.protocol)?;
        map.put("networkMode", &self.network_mode)?;
        map.put("node", &self.node)?;
        map.put("network", &self.network)?;
        map.put("clusterId", &self.cluster_id)?;
        map.some("waypoint", self.waypoint.as_deref())?;
        map.put("requireWaypoint", &self.require_waypoint)?;
        map.some("networkGateway", self.network_gateway.as_deref())?;
        map.some("applicationTunnel", self.app_tunnel.as_ref())?;
        map.some("networkGuarded", self.network_guarded.then_some(&true))?;
        map.put("nativeTunnel", &self.native_tunnel)?;
        map.put("canonicalName", &self.canonical_name)?;
        map.put("canonicalRevision", &self.canonical_revision)?;
        map.put("workloadType", &self.workload_type)?;
        map.put("workloadName", &self.workload_name)?;
        map.list("authorizationPolicies", &self.policies)?;
        map.put("status", &self.health)?;
        map.put("locality", &*self.locality)?;
        map.put("capacity", &self.capacity)?;
        let services = self.services.iter().map(|(key, map)| (key.to_string(), ports(map)));
        let labels: BTreeMap<_, _> = self.labels.iter().cloned().collect();
        map.some("labels", Some(&labels).filter(|labels| !labels.is_empty()))?;
        map.put("services", &services.collect::<BTreeMap<_, _>>())?;
        map.0.end()
    }
}

impl Serialize for Service {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Object(serializer.serialize_map(None)?);
        map.put("name", &self.name)?;
        map.put("namespace", &self.key.namespace)?;
        map.put("hostname", &self.key.hostname)?;
        map.put("vips", &self.vips)?;
        let ranges = self.cidr_vips.iter().map(|(network, range)| format!("{network}/{range}"));
        map.list("cidrVips", &ranges.collect::<Vec<_>>())?;
        let ports = self.ports.iter().map(|port| (port.port, port.target_port.unwrap_or(0)));
        map.put("ports", &ports.collect::<BTreeMap<_, _>>())?;
        map.list("subjectAltNames", &self.subject_alt_names)?;
        map.some("waypoint", self.waypoint.as_ref())?;
        map.list("weightedWaypoints", &self.weighted_waypoints)?;
        map.some(
            "loadBalancer",
            self.balancing.as_ref().map(|one| LoadBalancer(one, self)).as_ref(),
        )?;
        map.put("ipFamilies", &self.ip_families)?;
        map.put("canonical", &self.canonical)?;
        map.put("visibility", &self.visibility)?;
        map.list("backendTls", &self.tls)?;
        map.some("trafficPolicies", self.traffic.as_deref())?;
        map.some("retryConstraint", self.retry_constraint.as_ref())?;
        map.some("rateLimits", self.rate_limits.as_deref())?;
        map.0.end()
    }
}

struct LoadBalancer<'a>(&'a Balancing, &'a Service);

impl Serialize for LoadBalancer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Object(serializer.serialize_map(Some(3))?);
        map.put("mode", &self.0.mode)?;
        map.put("routingPreferences", &self.0.routing_preferences)?;
        map.put("healthPolicy", &self.1.health_policy)?;
        map.0.end()
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Object(serializer.serialize_map(Some(6))?);
        map.put("name", &self.key.name)?;
        map.put("namespace", &self.key.namespace)?;
        map.put("scope", &self.scope)?;
        map.list("targets", &self.targets)?;
        map.put("action", &self.action)?;
        map.put("dryRun", &self.dry_run)?;
        let rules = |group: &'_ crate::authz::Group| {
            group.rules.iter().map(|rule| rule.matches.clone()).collect::<Vec<_>>()
        };
        map.put("rules", &self.groups.iter().map(rules).collect::<Vec<_>>())?;
        map.0.end()
    }
}

impl Serialize for StringMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Object(serializer.serialize_map(Some(1))?);
        match self {
            Self::Exact(text) => map.put("Exact", text)?,
            Self::Prefix(text) => map.put("Prefix", text)?,
            Self::Suffix(text) => map.put("Suffix", text)?,
            Self::Presence => map.put("Presence", &[0u8; 0])?,
        }
        map.0.end()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::mesh::{GatewayAddress, sample};

    #[test]
    fn workload_has_the_keys_that_tools_read() {
        let mut workload = sample::workload("web-0", "team");
        workload.addresses = ["10.0.0.1".parse().unwrap()].into();
        workload.services = [(sample::service_key("web", "team"), [(80, 8080)].into())].into();
        workload.waypoint = Some(Arc::new(GatewayAddress {
            destination: GatewayDestination::Hostname(sample::service_key("wp", "team")),
            hbone_mtls_port: 15008,
        }));
        let value = json!(workload);
        assert_eq!(value["workloadIps"], json!(["10.0.0.1"]));
        assert_eq!(value["services"], json!({"team/web.team.svc.cluster.local": {"80": 8080}}));
        let waypoint =
            json!({"destination": "team/wp.team.svc.cluster.local", "hboneMtlsPort": 15008});
        assert_eq!(value["waypoint"], waypoint);
        assert_eq!(value["protocol"], "HBONE");
        assert_eq!(value["status"], "Healthy");
    }

    #[test]
    fn service_addresses_have_their_network() {
        let mut service = sample::service("web", "team");
        let address = "10.1.0.1".parse().unwrap();
        service.vips = [NetworkAddr { network: "".into(), address }].into();
        assert_eq!(json!(service)["vips"], json!(["/10.1.0.1"]));
    }
}
