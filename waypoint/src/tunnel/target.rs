//! Where a tunnel wants to go, if that is behind this waypoint.
//!
//! Pure. Law: a tunnel is served only if the service or workload that it names is bound to us.
//! Source: spec L7 §1.3.

use std::net::SocketAddr;
use std::sync::Arc;

use shared::hbone;
use shared::headers::{Authority, BadAuthority};
use shared::mesh::{AppProtocol, Mesh, Service, ServicePort, Workload};

/// What is behind us and was asked for.
#[derive(Debug, Clone)]
pub enum Target {
    /// A port of a service.
    Service {
        /// The service.
        service: Arc<Service>,
        /// The port that was dialled, one of the service's.
        port: u16,
        /// What the port is said to speak.
        protocol: AppProtocol,
        /// The address that was dialled; none when the service was named.
        dialled: Option<SocketAddr>,
    },
    /// A workload, by its own address.
    Workload {
        /// The workload.
        workload: Arc<Workload>,
        /// The address that was dialled.
        dialled: SocketAddr,
    },
}

/// Why a tunnel is not served.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// It asks for no tunnel.
    #[error(transparent)]
    Request(hbone::BadRequest),
    /// The mesh has no pod of our Gateway.
    #[error("the mesh has no pod of this gateway")]
    Nobody,
    /// The target is none.
    #[error(transparent)]
    Authority(#[from] BadAuthority),
    /// The mesh has nothing there.
    #[error("nothing in the mesh is at {0}")]
    Unknown(Box<str>),
    /// It is there, and bound to another waypoint or to none.
    #[error("{0} is not bound to this waypoint")]
    NotBound(Box<str>),
    /// The service has no such port.
    #[error("service {0} has no port {1}")]
    Port(Box<str>, u16),
}

/// Finds what `authority` names, among what is bound to `own`.
///
/// # Errors
/// [`NotServed`] says what is wrong with it.
pub(super) fn find(mesh: &Mesh, own: &Workload, authority: &str) -> Result<Target, NotServed> {
    match authority.parse()? {
        Authority::Host(host, port) => {
            let service = mesh.service_by_hostname(&host, None);
            let service = service.ok_or_else(|| NotServed::Unknown(authority.into()))?;
            of_service(mesh, own, service, port, None)
        }
        Authority::Address(at) => {
            if let Some(service) = mesh.service_by_vip(&own.network, at.ip(), None) {
                return of_service(mesh, own, service, at.port(), Some(at));
            }
            let workload = mesh.workload_by_addr(&own.network, at.ip());
            let workload = workload.ok_or_else(|| NotServed::Unknown(authority.into()))?;
            let bound =
                workload.waypoint.as_ref().is_some_and(|waypoint| mesh.is_instance(own, waypoint));
            if !bound {
                return Err(NotServed::NotBound(authority.into()));
            }
            Ok(Target::Workload { workload: Arc::clone(workload), dialled: at })
        }
    }
}

fn of_service(
    mesh: &Mesh,
    own: &Workload,
    service: &Arc<Service>,
    port: u16,
    dialled: Option<SocketAddr>,
) -> Result<Target, NotServed> {
    let name = || Box::from(&*service.key.hostname);
    if !service.waypoints().any(|waypoint| mesh.is_instance(own, waypoint)) {
        return Err(NotServed::NotBound(name()));
    }
    let known = service.ports.iter().find(|known| known.port == port);
    let known: &ServicePort = known.ok_or_else(|| NotServed::Port(name(), port))?;
    let protocol = match known.app_protocol {
        // Istio: ports of well-known protocols in which the server speaks first.
        AppProtocol::Unknown if matches!(port, 25 | 53 | 3306 | 27017) => AppProtocol::Tcp,
        protocol => protocol,
    };
    Ok(Target::Service { service: Arc::clone(service), port, protocol, dialled })
}

impl Target {
    /// The service, if it is one.
    pub fn service(&self) -> Option<&Arc<Service>> {
        match self {
            Self::Service { service, .. } => Some(service),
            Self::Workload { .. } => None,
        }
    }

    /// The port that was dialled.
    pub fn port(&self) -> u16 {
        match self {
            Self::Service { port, .. } => *port,
            Self::Workload { dialled, .. } => dialled.port(),
        }
    }

    /// What the port is said to speak.
    pub fn protocol(&self) -> AppProtocol {
        match self {
            Self::Service { protocol, .. } => *protocol,
            Self::Workload { .. } => AppProtocol::Unknown,
        }
    }
}
