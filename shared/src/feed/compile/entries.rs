//! Service entries and workload entries: services and machines beyond Kubernetes.

use std::sync::Arc;

use ipnet::IpNet;

use crate::feed::compile::Compiled;
use crate::feed::compile::world::{Traffic, World};
use crate::feed::object::{Body, Labels, Machine, Object, ServiceEntry, has_labels, label};
use crate::feed::verdict::Cause;
use crate::mesh::{
    Balancing, BalancingMode, Health, HealthPolicy, IpFamilies, NetworkAddr, NetworkMode, PortMap,
    Protocol, Service, ServiceKey, Uid, Workload, WorkloadType,
};

/// A service entry that selects workloads of its namespace.
pub(super) struct SelectingEntry<'a> {
    keys: Vec<ServiceKey>,
    selector: &'a Labels,
    ports: PortMap,
}

pub(super) fn compile<'a>(world: &mut World<'a>, compiled: &mut Compiled) {
    for object in world.objects {
        if let Body::ServiceEntry(entry) = &object.body {
            service_entry(world, compiled, object, entry);
        }
    }
    for object in world.objects {
        if let Body::WorkloadEntry(machine) = &object.body {
            let (namespace, name) = (&object.key.namespace, &object.key.name);
            let cluster = &world.options.cluster_id;
            let uid = format!("{cluster}/networking.istio.io/WorkloadEntry/{namespace}/{name}");
            let services = world.entries_of_labels(namespace, &machine.labels);
            let place = Place { object, uid, name };
            insert(world, compiled, place, machine, services);
        }
    }
}

fn service_entry<'a>(
    world: &mut World<'a>,
    compiled: &mut Compiled,
    object: &'a Object,
    entry: &'a ServiceEntry,
) {
    let namespace = &object.key.namespace;
    let network = world.options.network.clone();
    let (vips, ranges): (Vec<&IpNet>, Vec<&IpNet>) =
        entry.addresses.iter().partition(|range| range.prefix_len() == range.max_prefix_len());
    let waypoint = world.waypoint(object, &entry.waypoint, Traffic::Service);
    let mut keys = Vec::new();
    for hostname in &entry.hosts {
        let key = ServiceKey { namespace: namespace.clone(), hostname: hostname.clone() };
        if compiled.services.contains_key(&key) {
            let reason = format!("service {key} is defined before it");
            world.verdicts.push(object.verdict("spec.hosts", Cause::Shadowed, reason));
            continue;
        }
        let passthrough =
            Balancing { routing_preferences: Box::default(), mode: BalancingMode::Passthrough };
        let service = Service {
            key: key.clone(),
            name: object.key.name.clone(),
            vips: vips
                .iter()
                .map(|vip| NetworkAddr { network: network.clone(), address: vip.addr() })
                .collect(),
            cidr_vips: ranges.iter().map(|range| (network.clone(), **range)).collect(),
            ports: entry.ports.clone(),
            subject_alt_names: entry.subject_alt_names.clone(),
            waypoint: waypoint.clone().map(Arc::unwrap_or_clone),
            weighted_waypoints: Box::default(),
            balancing: entry.passthrough.then_some(passthrough),
            health_policy: if entry.passthrough {
                HealthPolicy::AllowAll
            } else {
                HealthPolicy::OnlyHealthy
            },
            ip_families: IpFamilies::Automatic,
            canonical: false,
            visibility: entry.visibility,
            traffic: None,
            retry_constraint: None,
            rate_limits: None,
            tls: Box::default(),
        };
        compiled.services.insert(key.clone(), Arc::new(service));
        keys.push(key);
    }
    for machine in &entry.endpoints {
        let address = machine.address.map(|address| address.to_string());
        let address = address.as_deref().or(machine.hostname.as_deref()).unwrap_or("");
        let (cluster, name) = (&world.options.cluster_id, &object.key.name);
        let uid =
            format!("{cluster}/networking.istio.io/ServiceEntry/{namespace}/{name}/{address}");
        let services = keys.iter().map(|key| (key.clone(), ports_of(entry, machine))).collect();
        insert(world, compiled, Place { object, uid, name }, machine, services);
    }
    let hosts = entry.hosts.iter().filter(|host| !host.contains('*'));
    let by_name = entry.dns && entry.endpoints.is_empty() && entry.selector.is_none();
    for host in hosts.filter(|_| by_name) {
        let key = ServiceKey { namespace: namespace.clone(), hostname: host.clone() };
        if !keys.contains(&key) {
            continue;
        }
        let (cluster, name) = (&world.options.cluster_id, &object.key.name);
        let uid = format!("{cluster}/networking.istio.io/ServiceEntry/{namespace}/{name}/{host}");
        let machine = Machine::named(host);
        let services = [(key, ports_of(entry, &machine))].into();
        insert(world, compiled, Place { object, uid, name }, &machine, services);
    }
    if let Some(selector) = &entry.selector {
        let ports = entry.ports.iter();
        let ports = ports.map(|port| (port.port, port.target_port.unwrap_or(port.port))).collect();
        let selecting = world.selecting_entries.entry(namespace.clone()).or_default();
        selecting.push(SelectingEntry { keys, selector, ports });
    }
}

/// A machine may say its own number for a port of a name.
fn ports_of(entry: &ServiceEntry, machine: &Machine) -> PortMap {
    let own = |name: &Arc<str>| machine.ports.iter().find(|(own, _)| own == name);
    let ports = entry.ports.iter();
    ports
        .map(|port| {
            let target = own(&port.name).map(|(_, number)| *number);
            (port.port, target.or(port.target_port).unwrap_or(port.port))
        })
        .collect()
}

/// Which object a machine comes from, and what it is called.
struct Place<'a> {
    object: &'a Object,
    uid: String,
    name: &'a Arc<str>,
}

fn insert(
    world: &mut World<'_>,
    compiled: &mut Compiled,
    place: Place<'_>,
    machine: &Machine,
    services: Box<[(ServiceKey, PortMap)]>,
) {
    let trust_domain = &world.options.trust_domain;
    let namespace = &place.object.key.namespace;
    let identity = world.intern.identity(trust_domain, namespace, &machine.service_account);
    let Ok(identity) = identity else {
        let reason = "serviceAccount must be a DNS-1123 name";
        world.verdicts.push(place.object.verdict("spec", Cause::Invalid, reason));
        return;
    };
    let app = label(&machine.labels, "app").unwrap_or(place.name).clone();
    let workload = Workload {
        uid: Uid(place.uid.into()),
        name: place.name.clone(),
        addresses: machine.address.into_iter().collect(),
        hostname: machine.hostname.clone(),
        network: world.network(&machine.network),
        identity,
        protocol: Protocol::Tcp,
        native_tunnel: false,
        waypoint: None,
        require_waypoint: false,
        network_gateway: None,
        node: world.intern.text(""),
        cluster_id: world.options.cluster_id.clone(),
        locality: machine.locality.clone(),
        canonical_name: app,
        canonical_revision: world.intern.text("latest"),
        workload_type: WorkloadType::Pod,
        workload_name: place.name.clone(),
        policies: Box::default(),
        health: Health::Healthy,
        network_mode: NetworkMode::Standard,
        app_tunnel: None,
        network_guarded: false,
        capacity: machine.weight,
        labels: world.subset_labels(&machine.labels),
        services,
    };
    compiled.workloads.insert(workload.uid.clone(), Arc::new(workload));
}

impl World<'_> {
    /// The service entries that select a pod.
    pub(super) fn entries_of(&self, object: &Object) -> Box<[(ServiceKey, PortMap)]> {
        self.entries_of_labels(&object.key.namespace, &object.labels)
    }

    fn entries_of_labels(
        &self,
        namespace: &Arc<str>,
        labels: &Labels,
    ) -> Box<[(ServiceKey, PortMap)]> {
        let selecting = self.selecting_entries.get(namespace).into_iter().flatten();
        selecting
            .filter(|entry| has_labels(labels, entry.selector))
            .flat_map(|entry| entry.keys.iter().map(|key| (key.clone(), entry.ports.clone())))
            .collect()
    }
}
