//! The objects by what refers to them, and the references that several kinds share.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::authz::{GatewayKey, PolicyKey};
use crate::feed::compile::Options;
use crate::feed::compile::entries::SelectingEntry;
use crate::feed::compile::services::Selecting;
use crate::feed::intern::Interner;
use crate::feed::object::{
    Body, Enrolment, Gateway, Labels, NetworkPolicy, Object, PeerAuthentication, UseWaypoint, label,
};
use crate::feed::verdict::{Cause, Verdict};
use crate::mesh::{
    self, GatewayAddress, GatewayDestination, Locality, NetworkAddr, PortMap, Service, ServiceKey,
};

/// Namespace and name.
type Name = (Arc<str>, Arc<str>);

/// Namespace, and a label with its value.
type SelectorPlace = (Arc<str>, Arc<str>, Arc<str>);

/// Objects by what refers to them.
pub(super) struct World<'a> {
    pub(super) objects: &'a [&'a Object],
    pub(super) options: &'a Options,
    pub(super) intern: &'a mut Interner,
    pub(super) verdicts: Vec<Verdict>,
    namespaces: HashMap<&'a str, (Enrolment, &'a UseWaypoint)>,
    localities: HashMap<&'a str, Arc<Locality>>,
    gateways: HashMap<(&'a str, &'a str), &'a Gateway>,
    waypoints: HashMap<Name, Arc<GatewayAddress>>,
    /// Policies of the network, by namespace.
    network_policies: HashMap<&'a str, Vec<&'a NetworkPolicy>>,
    /// Keys of labels that subsets look at.
    subset_keys: HashSet<&'a str>,
    /// Per namespace ("" is all of them): policies that workloads must refer to.
    pub(super) selected: HashMap<Arc<str>, Vec<(&'a Labels, PolicyKey)>>,
    /// Per pod of an endpoint slice: the services it is an endpoint of.
    pub(super) sliced: HashMap<Name, Vec<(ServiceKey, PortMap)>>,
    /// Services without slices, which select their endpoints: by namespace and the first label of
    /// the selector, so that a pod is compared with few of them.
    pub(super) selecting: HashMap<SelectorPlace, Vec<Selecting<'a>>>,
    /// Per namespace: service entries with a selector.
    pub(super) selecting_entries: HashMap<Arc<str>, Vec<SelectingEntry<'a>>>,
    /// Peer authentication, oldest first.
    pub(super) peers: Vec<(&'a Object, &'a PeerAuthentication)>,
}

/// What a waypoint is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    /// To a service.
    Service,
    /// To a workload's own address.
    Workload,
}

impl<'a> World<'a> {
    pub(super) fn new(
        objects: &'a [&'a Object],
        options: &'a Options,
        intern: &'a mut Interner,
    ) -> Self {
        let mut world = Self {
            objects,
            options,
            intern,
            verdicts: Vec::new(),
            namespaces: HashMap::new(),
            localities: HashMap::new(),
            gateways: HashMap::new(),
            waypoints: HashMap::new(),
            network_policies: HashMap::new(),
            subset_keys: HashSet::new(),
            selected: HashMap::new(),
            sliced: HashMap::new(),
            selecting: HashMap::new(),
            selecting_entries: HashMap::new(),
            peers: Vec::new(),
        };
        for object in objects {
            let (namespace, name) = (&*object.key.namespace, &*object.key.name);
            match &object.body {
                Body::Namespace { enrolment, waypoint } => {
                    world.namespaces.insert(name, (*enrolment, waypoint));
                }
                Body::Node => {
                    let part = |key| label(&object.labels, key).cloned().unwrap_or_default();
                    let locality = Locality {
                        region: part("topology.kubernetes.io/region"),
                        zone: part("topology.kubernetes.io/zone"),
                        subzone: part("topology.istio.io/subzone"),
                    };
                    world.localities.insert(name, Arc::new(locality));
                }
                Body::Gateway(gateway) => {
                    world.gateways.insert((namespace, name), gateway);
                }
                Body::NetworkPolicy(policy) => {
                    world.network_policies.entry(namespace).or_default().push(policy);
                }
                Body::DestinationRule(rule) => {
                    let labels = rule.subsets.iter().flat_map(|subset| subset.labels.iter());
                    world.subset_keys.extend(labels.map(|(key, _)| &**key));
                }
                _ => {}
            }
        }
        world
    }

    /// Reports namespaces that name a waypoint which does not exist.
    pub(super) fn check_namespaces(&mut self) {
        for object in self.objects {
            let Body::Namespace { waypoint: UseWaypoint::Named(namespace, name), .. } =
                &object.body
            else {
                continue;
            };
            let namespace = namespace.as_ref().unwrap_or(&object.key.name);
            if !self.gateways.contains_key(&(&**namespace, &**name)) {
                let reason = format!(
                    "there is no waypoint {namespace}/{name}; connections to services fail until \
                     there is one"
                );
                self.verdicts.push(object.verdict("metadata.labels", Cause::Invalid, reason));
            }
        }
    }

    /// What the Gateways say to their waypoints.
    pub(super) fn gateways(&self) -> Vec<Arc<mesh::Gateway>> {
        let mut gateways: Vec<_> = self
            .gateways
            .iter()
            .map(|((namespace, name), gateway)| mesh::Gateway {
                key: GatewayKey { namespace: (*namespace).into(), name: (*name).into() },
                tells_client: gateway.tells_client,
            })
            .collect();
        gateways.sort_unstable_by(|one, other| {
            (&one.key.namespace, &one.key.name).cmp(&(&other.key.namespace, &other.key.name))
        });
        gateways.into_iter().map(Arc::new).collect()
    }

    /// Whether there is a waypoint of this name.
    pub(super) fn has_waypoint(&self, namespace: &str, name: &str) -> bool {
        self.gateways.contains_key(&(namespace, name))
    }

    /// The services of a service entry; none when there is no such entry.
    pub(super) fn hosts_of(&self, namespace: &str, name: &str) -> Vec<ServiceKey> {
        let entry = self.objects.iter().find_map(|object| match &object.body {
            Body::ServiceEntry(entry)
                if (&*object.key.namespace, &*object.key.name) == (namespace, name) =>
            {
                Some(entry)
            }
            _ => None,
        });
        let key =
            |host: &Arc<str>| ServiceKey { namespace: namespace.into(), hostname: host.clone() };
        entry.map(|entry| entry.hosts.iter().map(key).collect()).unwrap_or_default()
    }

    /// Whether an object's own label, or else its namespace's, puts it into the mesh.
    pub(super) fn is_enrolled(&self, own: Enrolment, namespace: &str) -> bool {
        let wide = self.namespaces.get(namespace).map_or(Enrolment::Unset, |found| found.0);
        let effective = if own == Enrolment::Unset { wide } else { own };
        effective == Enrolment::In
    }

    /// The locality of a node.
    pub(super) fn locality(&self, node: &str) -> Arc<Locality> {
        self.localities.get(node).cloned().unwrap_or_default()
    }

    /// Whether a policy of the network selects a pod.
    pub(super) fn is_network_guarded(&self, pod: &Object) -> bool {
        let policies = self.network_policies.get(&*pod.key.namespace).into_iter().flatten();
        policies.into_iter().any(|policy| policy.selects(&pod.labels))
    }

    /// Those labels that subsets look at.
    pub(super) fn subset_labels(&self, labels: &Labels) -> Box<[(Arc<str>, Arc<str>)]> {
        let wanted = |(key, _): &&(Arc<str>, Arc<str>)| self.subset_keys.contains(&**key);
        labels.iter().filter(wanted).cloned().collect()
    }

    /// A host as a rule in `namespace` names it: without dots it is a service of that namespace.
    pub(super) fn full_host(&self, host: &str, namespace: &str) -> Box<str> {
        if host == "*" || host.contains('.') {
            return host.into();
        }
        format!("{host}.{namespace}.svc.{}", self.options.cluster_domain).into()
    }

    /// The namespace whose waypoint decides about the traffic of `service`: the one that is served
    /// here, else the service's own waypoint's, else the service's.
    pub(super) fn viewer<'s>(options: &'s Options, service: &'s Service) -> &'s str {
        let serving = service.waypoints().find_map(|waypoint| match &waypoint.destination {
            GatewayDestination::Hostname(key) => Some(&*key.namespace),
            GatewayDestination::Address(_) => None,
        });
        let here = options.gateway.as_ref().map(|(namespace, _)| &**namespace);
        here.or(serving).unwrap_or(&service.key.namespace)
    }

    /// The key of a Kubernetes service.
    pub(super) fn service_key(&mut self, namespace: &Arc<str>, name: &str) -> ServiceKey {
        let hostname = format!("{name}.{namespace}.svc.{}", self.options.cluster_domain);
        ServiceKey { namespace: namespace.clone(), hostname: self.intern.text(&hostname) }
    }

    /// The waypoint for traffic to `object`. One that is named but does not exist is given an
    /// address where nothing is, so that traffic fails instead of going past it.
    pub(super) fn waypoint(
        &mut self,
        object: &Object,
        own: &UseWaypoint,
        traffic: Traffic,
    ) -> Option<Arc<GatewayAddress>> {
        let key = &object.key;
        if self.is_waypoint(object) {
            return None;
        }
        let wide = self.namespaces.get(&*key.namespace).map(|found| found.1);
        let effective = if *own == UseWaypoint::Unset { wide? } else { own };
        let UseWaypoint::Named(namespace, name) = effective else { return None };
        let namespace = namespace.clone().unwrap_or_else(|| key.namespace.clone());
        let name = name.clone();
        let gateway = self.gateways.get(&(&*namespace, &*name)).copied();
        let serves = gateway.map(|gateway| match traffic {
            Traffic::Service => gateway.serves.services,
            Traffic::Workload => gateway.serves.workloads,
        });
        if serves == Some(false) {
            if *own != UseWaypoint::Unset {
                let reason = format!("waypoint {namespace}/{name} does not take this traffic");
                self.verdicts.push(object.verdict("metadata.labels", Cause::Unsupported, reason));
            }
            return None;
        }
        if serves.is_none() && *own != UseWaypoint::Unset {
            let reason = format!(
                "there is no waypoint {namespace}/{name}; connections fail until there is one"
            );
            self.verdicts.push(object.verdict("metadata.labels", Cause::Invalid, reason));
        }
        if serves.is_none() && traffic == Traffic::Workload && *own == UseWaypoint::Unset {
            // Which traffic the missing waypoint would take is unknown; services are the default.
            return None;
        }
        Some(self.address_of(namespace, name, gateway))
    }

    fn address_of(
        &mut self,
        namespace: Arc<str>,
        name: Arc<str>,
        gateway: Option<&Gateway>,
    ) -> Arc<GatewayAddress> {
        if let Some(address) = self.waypoints.get(&(namespace.clone(), name.clone())) {
            return address.clone();
        }
        let hostname = gateway.and_then(|gateway| gateway.hostname.clone());
        let destination = match (hostname, gateway.and_then(|gateway| gateway.address)) {
            (Some(hostname), _) => {
                let namespace = namespace.clone();
                GatewayDestination::Hostname(ServiceKey { namespace, hostname })
            }
            (None, Some(address)) => {
                let network = self.options.network.clone();
                GatewayDestination::Address(NetworkAddr { network, address })
            }
            (None, None) => GatewayDestination::Hostname(self.service_key(&namespace, &name)),
        };
        let hbone_mtls_port = gateway.map_or(15008, |gateway| gateway.port);
        let address = Arc::new(GatewayAddress { destination, hbone_mtls_port });
        self.waypoints.insert((namespace, name), address.clone());
        address
    }

    /// The network that an object names, or the one of all that name none.
    pub(super) fn network(&self, named: &Arc<str>) -> Arc<str> {
        if named.is_empty() { self.options.network.clone() } else { named.clone() }
    }

    /// Whether an object is part of a waypoint, which has no waypoint itself.
    fn is_waypoint(&self, object: &Object) -> bool {
        let name = label(&object.labels, "gateway.networking.k8s.io/gateway-name");
        let name = name.unwrap_or(&object.key.name);
        self.gateways.contains_key(&(&*object.key.namespace, &**name))
    }
}
