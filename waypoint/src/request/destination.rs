//! Where a request goes: the backend that its rule draws, or what was asked for.
//!
//! Not here: which rule it is (`router`), which endpoint (`cluster`).

use std::rc::Rc;
use std::sync::Arc;

use shared::mesh::{AppProtocol, Mesh, Service, ServiceKey};

use crate::cluster::Cluster;
use crate::request::Failure;
use crate::router::{Backend, Choice, Matched, Rule};
use crate::tunnel::{Client, Target};
use crate::upstream::Endpoint;

/// Where a request goes.
pub(super) struct Destination<'t> {
    pub(super) cluster: Rc<Cluster>,
    /// The service; none for a workload that was asked for by its address.
    pub(super) service: Option<&'t Arc<Service>>,
    pub(super) protocol: AppProtocol,
    /// The backend that was drawn; none without a route.
    pub(super) backend: Option<&'t Backend>,
}

/// Draws the backend of the rule; without a rule it is what was asked for.
///
/// # Errors
/// There is none, or nothing may be sent to it.
pub(super) fn destination<'t>(
    client: &Client,
    mesh: &'t Mesh,
    matched: Option<&Matched<'t>>,
    session: Option<&(&'t Backend, Endpoint)>,
) -> Result<Destination<'t>, Failure> {
    let drawn = |rule: &'t Rule| match (session, rule.choose(fastrand::u64(..))) {
        (Some((backend, _)), _) => Ok(*backend),
        (None, Choice::Backend(backend)) => Ok(backend),
        (None, Choice::Invalid(reason)) => Err(Failure::Backend(reason.into())),
        (None, Choice::NoBackends) => Err(Failure::NoBackends),
    };
    let (key, port, backend) = match (matched, &client.target) {
        (Some(matched), _) => {
            let backend = drawn(matched.rule)?;
            (&backend.destination.service, backend.destination.port, Some(backend))
        }
        (None, Target::Service { service, port, .. }) => {
            let known = mesh.service(&service.key);
            let known = known.ok_or_else(|| unknown(&service.key))?;
            (&known.key, *port, None)
        }
        (None, Target::Workload { workload, dialled }) => {
            return Ok(Destination {
                cluster: client.worker.alone(Endpoint::new(Arc::clone(workload), *dialled)),
                service: None,
                protocol: AppProtocol::Unknown,
                backend: None,
            });
        }
    };
    let service = mesh.service(key).ok_or_else(|| unknown(key))?;
    check(service, port)?;
    let protocol = service.ports.iter().find(|known| known.port == port);
    Ok(Destination {
        cluster: client.worker.upstream.cluster(mesh, client, service, port),
        service: Some(service),
        protocol: protocol.map_or(AppProtocol::Unknown, |known| known.app_protocol),
        backend,
    })
}

/// Nothing is sent without the protection that a rule asks for.
///
/// # Errors
/// It cannot be given.
pub(crate) fn check(service: &Service, port: u16) -> Result<(), Failure> {
    let refused = service.policy(port).and_then(|policy| policy.refused.clone());
    let refused = refused.or_else(|| service.tls(port)?.as_ref().err().cloned());
    refused.map_or(Ok(()), |reason| Err(Failure::Backend(reason)))
}

fn unknown(key: &ServiceKey) -> Failure {
    Failure::ServiceUnknown(key.hostname.clone())
}
