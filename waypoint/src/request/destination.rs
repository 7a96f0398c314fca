//! Where a request goes: the backend that its rule draws, or what was asked for.
//!
//! Not here: which rule it is (`router`), which endpoint (`cluster`).

use std::rc::Rc;
use std::sync::Arc;

use shared::mesh::{self, AppProtocol, Mesh, Service, ServiceKey};

use crate::cluster::{Aim, Cluster};
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
        (None, Choice::Invalid(reason)) if rule.is_virtual() => {
            Err(Failure::DestinationUnknown(reason.into()))
        }
        (None, Choice::Invalid(reason)) => Err(Failure::Backend(reason.into())),
        (None, Choice::NoBackends) => Err(Failure::NoBackends),
    };
    let (aim, backend) = match (matched, &client.target) {
        (Some(matched), _) => {
            let backend = drawn(matched.rule)?;
            (aim(mesh, &backend.destination)?, Some(backend))
        }
        (None, Target::Service { service, port, .. }) => {
            let known = mesh.service(&service.key);
            let aim = Aim::whole(known.ok_or_else(|| unknown(&service.key))?, *port);
            check(aim)?;
            (aim, None)
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
    let protocol = aim.service.ports.iter().find(|known| known.port == aim.port);
    Ok(Destination {
        cluster: client.worker.upstream.cluster(mesh, client, aim),
        service: Some(aim.service),
        protocol: protocol.map_or(AppProtocol::Unknown, |known| known.app_protocol),
        backend,
    })
}

/// What the mesh knows of a destination.
///
/// # Errors
/// Nothing, or nothing may be sent there.
pub(crate) fn aim<'m>(mesh: &'m Mesh, destination: &mesh::Destination) -> Result<Aim<'m>, Failure> {
    let key = &destination.service;
    let service = mesh.service(key).ok_or_else(|| unknown(key))?;
    let subset = destination.subset.as_ref().map(|name| {
        let unknown = || Failure::SubsetUnknown(Box::new(destination.clone()));
        service.subset(name).ok_or_else(unknown)
    });
    let aim = Aim { service, port: destination.port, subset: subset.transpose()? };
    check(aim).map(|()| aim)
}

/// Nothing is sent without the protection that a rule asks for.
///
/// # Errors
/// It cannot be given.
pub(crate) fn check(aim: Aim<'_>) -> Result<(), Failure> {
    let refused = aim.policy().and_then(|policy| policy.refused.clone());
    let refused = refused.or_else(|| aim.service.tls(aim.port)?.as_ref().err().cloned());
    refused.map_or(Ok(()), |reason| Err(Failure::Backend(reason)))
}

fn unknown(key: &ServiceKey) -> Failure {
    Failure::ServiceUnknown(key.hostname.clone())
}
