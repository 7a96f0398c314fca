//! The endpoints of services, worked out once per change of the mesh or of the names in it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use shared::balance::{self, Host, Wanted, host};
use shared::mesh::{Mesh, Service, Workload};

use crate::cluster::{Aim, Cluster, Locals, has_policy};
use crate::tunnel::Client;
use crate::upstream::{Answers, Endpoint, Secured, secured};

/// Known clusters: by service and subset (addresses that [`Known`] keeps alive; 0 is no subset), port,
/// and whether IPv4 is preferred.
#[derive(Default)]
pub(super) struct Clusters {
    known: RefCell<HashMap<(usize, usize, u16, bool), Known>>,
    secured: secured::Known,
    /// What names stand for.
    names: RefCell<Arc<Answers>>,
    locals: Locals,
}

struct Known {
    _service: Arc<Service>,
    /// Of the mesh and of the names.
    generation: (u64, u64),
    cluster: Rc<Cluster>,
}

impl Clusters {
    /// What `aim` means, with the endpoints that `client` may be led to, in the family of `like` where
    /// there is a choice.
    pub(super) fn get(
        &self,
        mesh: &Mesh,
        client: &Client,
        aim: Aim<'_>,
        like: IpAddr,
    ) -> Rc<Cluster> {
        let Aim { service, port, subset } = aim;
        let subset = subset.map_or(0, |subset| std::ptr::from_ref(subset).addr());
        let key = (Arc::as_ptr(service).addr(), subset, port, like.is_ipv4());
        let mut known = self.known.borrow_mut();
        let generation = self.generation(mesh);
        if let Some(one) = known.get(&key).filter(|one| one.generation == generation) {
            return Rc::clone(&one.cluster);
        }
        let endpoints = match self.secured(service, port) {
            Ok(secured) => self.found(mesh, &client.own, aim, like, secured.as_ref()),
            // Nobody, rather than somebody in plaintext.
            Err(error) => {
                tracing::warn!(service = %service.key, %error, "cannot speak TLS as asked");
                Vec::new()
            }
        };
        let worker = &client.worker;
        let cluster = Cluster::new(mesh, aim, endpoints, client, &self.locals);
        if let Some(standing) = cluster.limits_connections() {
            worker.upstream.give_way(standing);
        }
        let kept = Rc::clone(&cluster);
        known.insert(key, Known { _service: Arc::clone(service), generation, cluster });
        kept
    }

    /// Forgets what belongs to an older mesh.
    pub(super) fn sweep(&self, mesh: &Mesh) {
        let generation = self.generation(mesh);
        self.known.borrow_mut().retain(|_, one| one.generation == generation);
        self.secured.sweep();
        self.locals.sweep(|destination| has_policy(mesh, destination));
    }

    /// Takes what names stand for from now on.
    pub(super) fn learn(&self, names: Arc<Answers>) {
        self.names.replace(names);
    }

    fn generation(&self, mesh: &Mesh) -> (u64, u64) {
        (mesh.generation(), self.names.borrow().generation)
    }

    fn secured(&self, service: &Service, port: u16) -> Result<Option<Secured>, String> {
        match service.tls(port) {
            None => Ok(None),
            Some(Ok(terms)) => self.secured.by(terms).map(Some).map_err(|error| error.to_string()),
            Some(Err(reason)) => Err(reason.to_string()),
        }
    }

    fn found(
        &self,
        mesh: &Mesh,
        own: &Workload,
        aim: Aim<'_>,
        like: IpAddr,
        secured: Option<&Secured>,
    ) -> Vec<Endpoint> {
        let names = self.names.borrow();
        // The preference of a rule takes the place of the service's own.
        let ruled = aim.policy().is_some_and(|policy| policy.locality.is_some());
        let open = ruled.then(|| Service { balancing: None, ..Service::clone(aim.service) });
        let service = open.as_ref().unwrap_or(aim.service);
        let wanted = aim.subset.map_or(Wanted::Service, |subset| Wanted::Subset(&subset.labels));
        let candidates = balance::candidates(mesh, own, service, wanted, aim.port);
        let mut endpoints = Vec::new();
        for one in candidates {
            let addresses = match host(one.workload, like, service.ip_families) {
                Some(Host::Ip(ip)) => vec![ip],
                Some(Host::Name(name)) => in_family(names.of(&name), like),
                None => Vec::new(),
            };
            endpoints.extend(addresses.into_iter().map(|ip| Endpoint {
                secured: secured.cloned(),
                ..Endpoint::new(Arc::clone(one.workload), (ip, one.port).into())
            }));
        }
        endpoints
    }
}

/// Those of the client's family, else all.
fn in_family(addresses: &[IpAddr], like: IpAddr) -> Vec<IpAddr> {
    let own = addresses.iter().filter(|one| one.is_ipv4() == like.is_ipv4());
    let own: Vec<IpAddr> = own.copied().collect();
    if own.is_empty() { addresses.to_vec() } else { own }
}
