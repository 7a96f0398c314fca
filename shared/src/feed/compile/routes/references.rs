//! What the references of routes stand for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::feed::compile::Compiled;
use crate::feed::compile::destinations::is_under;
use crate::feed::compile::world::World;
use crate::feed::object::{
    BackendKind, BackendRef, Body, Object, ParentKind, ParentRef, Reference, ReferenceGrant,
    ServiceEntry,
};
use crate::feed::verdict::Cause;
use crate::mesh::{Destination, RouteParent, Service, ServiceKey, Visibility};

/// Services, and what refers to them or grants it.
pub(super) struct References<'a> {
    domain: &'a str,
    services: &'a BTreeMap<ServiceKey, Arc<Service>>,
    by_host: HashMap<&'a str, Vec<&'a Arc<Service>>>,
    entries: HashMap<(&'a str, &'a str), &'a ServiceEntry>,
    grants: HashMap<&'a str, Vec<&'a ReferenceGrant>>,
}

/// Why a reference stands for nothing.
#[derive(Debug)]
pub(super) struct Cannot {
    pub(super) cause: Cause,
    pub(super) reason: String,
}

impl From<String> for Cannot {
    fn from(reason: String) -> Self {
        Self { cause: Cause::Invalid, reason }
    }
}

impl<'a> References<'a> {
    pub(super) fn new(world: &World<'a>, compiled: &'a Compiled) -> Self {
        let (mut entries, mut grants) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for object in world.objects {
            let (namespace, name) = (&*object.key.namespace, &*object.key.name);
            match &object.body {
                Body::ServiceEntry(entry) => {
                    entries.insert((namespace, name), &**entry);
                }
                Body::ReferenceGrant(grant) => grants.entry(namespace).or_default().push(&**grant),
                _ => {}
            }
        }
        let mut by_host = HashMap::<_, Vec<_>>::new();
        for service in compiled.services.values() {
            by_host.entry(&*service.key.hostname).or_default().push(service);
        }
        let domain = &*world.options.cluster_domain;
        Self { domain, services: &compiled.services, by_host, entries, grants }
    }

    /// The services that a route is attached to by `parent`.
    pub(super) fn parents(&self, parent: &ParentRef) -> Result<Vec<RouteParent>, Cannot> {
        let services = match parent.kind {
            ParentKind::Service => vec![self.service(&parent.namespace, &parent.name)?],
            ParentKind::ServiceEntry => self.hosts(&parent.namespace, &parent.name)?,
        };
        let mut parents = Vec::new();
        for service in services {
            let mut port = parent.port;
            if let Some(section) = &parent.section {
                let named = service.ports.iter().find(|own| own.name == *section);
                let Some(named) = named.filter(|own| port.is_none_or(|port| port == own.port))
                else {
                    return Err(format!("service {} has no port {section}", service.key).into());
                };
                port = Some(named.port);
            }
            if let Some(port) = port {
                has_port(service, port)?;
            }
            parents.push(RouteParent { service: service.key.clone(), port });
        }
        Ok(parents)
    }

    /// Whether there is a waypoint that the traffic of `parent` comes by.
    pub(super) fn routes(&self, parent: &RouteParent) -> bool {
        let service = self.services.get(&parent.service);
        service.is_some_and(|service| service.waypoints().next().is_some())
    }

    /// The port of a service that `route` sends to.
    pub(super) fn backend(
        &self,
        route: &Object,
        reference: &BackendRef,
    ) -> Result<Destination, Cannot> {
        let BackendRef { namespace, name, .. } = reference;
        let (group, kind) = match &reference.kind {
            BackendKind::Service => ("", "Service"),
            BackendKind::ServiceEntry => ("networking.istio.io", "ServiceEntry"),
            BackendKind::Hostname => ("networking.istio.io", "Hostname"),
            BackendKind::Other(what) => {
                let reason = format!("{what} is no kind of backend, so its share answers 500");
                return Err(Cannot { cause: Cause::Unsupported, reason });
            }
        };
        let from = &*route.key.namespace;
        if **namespace != *from && !self.is_granted(route, namespace, (group, kind, name)) {
            let reason = format!(
                "no ReferenceGrant in {namespace} lets a {} of {from} send to {kind} {name}",
                route.key.kind
            );
            return Err(reason.into());
        }
        let service = match reference.kind {
            BackendKind::ServiceEntry => self.hosts(namespace, name)?.remove(0),
            BackendKind::Hostname => self.by_host(from, name)?,
            _ => self.service(namespace, name)?,
        };
        let Some(port) = reference.port else {
            return Err("a backend needs a port".to_owned().into());
        };
        has_port(service, port)?;
        Ok(Destination { service: service.key.clone(), port, subset: None })
    }

    fn is_granted(&self, route: &Object, namespace: &str, to: (&str, &str, &str)) -> bool {
        let (group, kind, name) = to;
        let (from_kind, from_namespace) = (route.key.kind, &*route.key.namespace);
        let wanted = Reference { from_kind, from_namespace, group, kind, name };
        self.grants.get(namespace).into_iter().flatten().any(|grant| grant.allows(&wanted))
    }

    fn service(&self, namespace: &Arc<str>, name: &str) -> Result<&'a Arc<Service>, Cannot> {
        let hostname = format!("{name}.{namespace}.svc.{}", self.domain).into();
        let key = ServiceKey { namespace: namespace.clone(), hostname };
        self.services
            .get(&key)
            .ok_or_else(|| format!("there is no service {namespace}/{name}").into())
    }

    /// The services of a service entry; never none.
    fn hosts(&self, namespace: &Arc<str>, name: &str) -> Result<Vec<&'a Arc<Service>>, Cannot> {
        let entry = self.entries.get(&(&**namespace, name));
        let hosts = entry.iter().flat_map(|entry| entry.hosts.iter()).filter_map(|host| {
            let key = ServiceKey { namespace: namespace.clone(), hostname: host.clone() };
            self.services.get(&key)
        });
        let hosts: Vec<_> = hosts.collect();
        if hosts.is_empty() {
            return Err(format!("there is no ServiceEntry {namespace}/{name}").into());
        }
        Ok(hosts)
    }

    /// All services of a host; of all hosts under it where it begins with a star.
    pub(super) fn of_host<'s>(&'s self, host: &'s str) -> Vec<&'a Arc<Service>> {
        let Some(suffix) = host.strip_prefix('*') else {
            return self.by_host.get(host).into_iter().flatten().copied().collect();
        };
        let under = self.services.values().filter(|one| is_under(&one.key.hostname, suffix));
        under.collect()
    }

    /// As a client in `namespace` finds a host name: its own namespace's, else a canonical one.
    pub(super) fn by_host(&self, namespace: &str, host: &str) -> Result<&'a Arc<Service>, Cannot> {
        let own = |service: &Service| *service.key.namespace == *namespace;
        let seen =
            |service: &&&Arc<Service>| service.visibility == Visibility::Public || own(service);
        let found = self.by_host.get(host).into_iter().flatten().filter(seen);
        let rank = |service: &Service| (own(service), service.canonical);
        found
            .copied()
            .reduce(|best, one| if rank(one) > rank(best) { one } else { best })
            .ok_or_else(|| format!("there is no service of host {host}").into())
    }
}

pub(super) fn has_port(service: &Service, port: u16) -> Result<(), Cannot> {
    if service.ports.iter().any(|own| own.port == port) {
        return Ok(());
    }
    Err(format!("service {} has no port {port}", service.key).into())
}
