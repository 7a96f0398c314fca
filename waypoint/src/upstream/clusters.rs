//! The endpoints of services, worked out once per change of the mesh.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use shared::balance::{self, Host, Wanted, host};
use shared::mesh::{Mesh, Service, Workload};

use crate::cluster::Cluster;
use crate::tunnel::Client;
use crate::upstream::Endpoint;

/// Known clusters: by service (an address that [`Known`] keeps alive), port, and whether IPv4 is
/// preferred.
#[derive(Default)]
pub(super) struct Clusters {
    known: RefCell<HashMap<(usize, u16, bool), Known>>,
}

struct Known {
    _service: Arc<Service>,
    generation: u64,
    cluster: Rc<Cluster>,
}

impl Clusters {
    /// A port of `service` with the endpoints that `client` may be led to, in the family of `like`
    /// where there is a choice.
    pub(super) fn get(
        &self,
        mesh: &Mesh,
        client: &Client,
        (service, port): (&Arc<Service>, u16),
        like: IpAddr,
    ) -> Rc<Cluster> {
        let key = (Arc::as_ptr(service).addr(), port, like.is_ipv4());
        let mut known = self.known.borrow_mut();
        if let Some(one) = known.get(&key).filter(|one| one.generation == mesh.generation()) {
            return Rc::clone(&one.cluster);
        }
        let endpoints = endpoints(mesh, &client.own, service, port, like);
        let worker = &client.worker;
        let cluster =
            Cluster::new(mesh, (service, port), endpoints, &worker.node.standings, &worker.loads);
        if let Some(standing) = cluster.limits_connections() {
            worker.upstream.give_way(standing);
        }
        let (generation, kept) = (mesh.generation(), Rc::clone(&cluster));
        known.insert(key, Known { _service: Arc::clone(service), generation, cluster });
        kept
    }

    /// Forgets what belongs to an older mesh.
    pub(super) fn sweep(&self, mesh: &Mesh) {
        self.known.borrow_mut().retain(|_, one| one.generation == mesh.generation());
    }
}

fn endpoints(
    mesh: &Mesh,
    own: &Workload,
    service: &Service,
    port: u16,
    like: IpAddr,
) -> Box<[Endpoint]> {
    let candidates = balance::candidates(mesh, own, service, Wanted::Service, port);
    let endpoint = |one: balance::Candidate<'_>| {
        let workload = Arc::clone(one.workload);
        match host(&workload, like, service.ip_families)? {
            Host::Ip(ip) => Some(Endpoint::new(workload, (ip, one.port).into())),
            // A name is not resolved here yet.
            Host::Name(_) => None,
        }
    };
    candidates.into_iter().filter_map(endpoint).collect()
}
