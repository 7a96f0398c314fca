//! Services of Kubernetes, and the endpoints that slices give them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::feed::compile::Compiled;
use crate::feed::compile::world::{Traffic, World};
use crate::feed::object::{
    Body, EndpointSlice, KubePort, KubeService, Object, Pod, SliceEndpoint, TargetPort, has_labels,
};
use crate::feed::verdict::Cause;
use crate::mesh::{
    Health, HealthPolicy, NetworkAddr, NetworkMode, PortMap, Protocol, Service, ServiceKey,
    ServicePort, Uid, Visibility, Workload, WorkloadType,
};

/// A service whose endpoints are the pods that its selector selects.
pub(super) struct Selecting<'a> {
    pub(super) key: ServiceKey,
    pub(super) service: &'a KubeService,
}

impl Selecting<'_> {
    /// The ports of `pod` for this service, if it is an endpoint.
    pub(super) fn ports_of(&self, object: &Object, pod: &Pod) -> Option<PortMap> {
        has_labels(&object.labels, &self.service.selector).then(|| {
            let target = |target: &TargetPort| match target {
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => {
                    pod.ports.iter().find(|(own, _)| own == name).map(|(_, number)| *number)
                }
            };
            let ports = self.service.ports.iter();
            ports.filter_map(|port| Some((port.port, target(&port.target)?))).collect()
        })
    }
}

pub(super) fn compile<'a>(world: &mut World<'a>, compiled: &mut Compiled) {
    let mut slices: HashMap<_, Vec<(&'a Object, &'a EndpointSlice)>> = HashMap::new();
    let mut pods_at: HashMap<IpAddr, &'a Arc<str>> = HashMap::new();
    for object in world.objects {
        match &object.body {
            Body::EndpointSlice(slice) => {
                let key = (&object.key.namespace, &slice.service);
                slices.entry(key).or_default().push((object, slice));
            }
            Body::Pod(pod) if !pod.host_network && !pod.ended => {
                pods_at.extend(pod.addresses.iter().map(|address| (*address, &object.key.name)));
            }
            _ => {}
        }
    }
    let mut taken: HashMap<IpAddr, &'a Object> = HashMap::new();
    for object in world.objects {
        let Body::Service(service) = &object.body else { continue };
        let key = world.service_key(&object.key.namespace, &object.key.name);
        let vips = claim(world, &mut taken, object, &service.vips);
        let waypoint = world.waypoint(object, &service.waypoint, Traffic::Service);
        let built = Service {
            key: key.clone(),
            name: object.key.name.clone(),
            vips,
            cidr_vips: Box::default(),
            ports: service.ports.iter().map(service_port).collect(),
            subject_alt_names: Box::default(),
            waypoint: waypoint.map(Arc::unwrap_or_clone),
            weighted_waypoints: Box::default(),
            balancing: service.balancing.clone(),
            health_policy: service.health_policy,
            ip_families: service.ip_families,
            canonical: true,
            visibility: Visibility::Public,
            traffic: None,
            retry_constraint: None,
            rate_limits: service.rate_limits.clone(),
            tls: Box::default(),
        };
        if built.rate_limits.is_some() && built.waypoint.is_none() {
            let reason = "the service has no waypoint, and only one limits";
            let verdict = object.verdict("metadata.annotations", Cause::Unsupported, reason);
            world.verdicts.push(verdict);
        }
        compiled.services.insert(key.clone(), Arc::new(built));
        match slices.remove(&(&object.key.namespace, &object.key.name)) {
            Some(slices) => {
                for (slice_object, slice) in slices {
                    let from = Slice { object: slice_object, slice, service, key: &key };
                    from.endpoints(world, &pods_at, compiled);
                }
            }
            None => {
                let Some((label, value)) = service.selector.first().cloned() else { continue };
                let place = (object.key.namespace.clone(), label, value);
                world.selecting.entry(place).or_default().push(Selecting { key, service });
            }
        }
    }
    for (object, slice) in slices.into_values().flatten() {
        let reason = format!("there is no service {}", slice.service);
        world.verdicts.push(object.verdict("metadata.labels", Cause::Invalid, reason));
    }
}

/// The addresses that no service before this one has.
fn claim<'a>(
    world: &mut World<'a>,
    taken: &mut HashMap<IpAddr, &'a Object>,
    object: &'a Object,
    vips: &[IpAddr],
) -> Box<[NetworkAddr]> {
    let mut own = Vec::new();
    for vip in vips {
        let holder = *taken.entry(*vip).or_insert(object);
        if holder.key == object.key {
            own.push(NetworkAddr { network: world.options.network.clone(), address: *vip });
        } else {
            let reason =
                format!("{vip} belongs to {} ({}:{})", holder.key, holder.file, holder.line);
            world.verdicts.push(object.verdict("spec.clusterIPs", Cause::Shadowed, reason));
        }
    }
    own.into()
}

fn service_port(port: &KubePort) -> ServicePort {
    let target_port = match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(_) => None,
    };
    ServicePort {
        port: port.port,
        target_port,
        app_protocol: port.app_protocol,
        name: port.name.clone(),
    }
}

/// One slice of a known service.
struct Slice<'a> {
    object: &'a Object,
    slice: &'a EndpointSlice,
    service: &'a KubeService,
    key: &'a ServiceKey,
}

impl Slice<'_> {
    fn endpoints(
        &self,
        world: &mut World<'_>,
        pods_at: &HashMap<IpAddr, &Arc<str>>,
        compiled: &mut Compiled,
    ) {
        let all = self.service.health_policy == HealthPolicy::AllowAll;
        let service_ports = self.service.ports.iter();
        let ports: PortMap = service_ports
            .filter_map(|port| {
                let found = self.slice.ports.iter().find(|(name, _)| *name == port.name)?;
                Some((port.port, found.1))
            })
            .collect();
        for endpoint in self.slice.endpoints.iter().filter(|endpoint| endpoint.ready || all) {
            let at = |address: &IpAddr| pods_at.get(address).map(|name| Arc::clone(name));
            let pod = endpoint.pod.clone().or_else(|| endpoint.addresses.iter().find_map(at));
            if let Some(pod) = pod {
                let entry = (self.object.key.namespace.clone(), pod);
                let services = world.sliced.entry(entry).or_default();
                if services.iter().all(|(key, _)| key != self.key) {
                    services.push((self.key.clone(), ports.clone()));
                }
                continue;
            }
            for address in &endpoint.addresses {
                self.bare_endpoint(world, endpoint, *address, &ports, compiled);
            }
        }
    }

    /// An endpoint that is no pod: a machine outside the mesh.
    fn bare_endpoint(
        &self,
        world: &mut World<'_>,
        endpoint: &SliceEndpoint,
        address: IpAddr,
        ports: &PortMap,
        compiled: &mut Compiled,
    ) {
        let (namespace, name) = (&self.object.key.namespace, &self.object.key.name);
        let cluster = &world.options.cluster_id;
        let uid = format!("{cluster}/discovery.k8s.io/EndpointSlice/{namespace}/{name}/{address}");
        let trust_domain = &world.options.trust_domain;
        let Ok(identity) = world.intern.identity(trust_domain, namespace, "default") else {
            return;
        };
        let text = world.intern.text(&address.to_string());
        let workload = Workload {
            uid: Uid(uid.into()),
            name: text.clone(),
            addresses: [address].into(),
            hostname: None,
            network: world.options.network.clone(),
            identity,
            protocol: Protocol::Tcp,
            native_tunnel: false,
            waypoint: None,
            require_waypoint: false,
            network_gateway: None,
            node: endpoint.node.clone(),
            cluster_id: cluster.clone(),
            locality: world.locality(&endpoint.node),
            canonical_name: text.clone(),
            canonical_revision: world.intern.text("latest"),
            workload_type: WorkloadType::Pod,
            workload_name: text,
            policies: Box::default(),
            health: Health::Healthy,
            network_mode: NetworkMode::Standard,
            app_tunnel: None,
            network_guarded: false,
            capacity: 1,
            labels: Box::default(),
            services: [(self.key.clone(), ports.clone())].into(),
        };
        compiled.workloads.insert(workload.uid.clone(), Arc::new(workload));
    }
}
