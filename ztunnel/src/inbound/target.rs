//! What a tunnel is asked for, and where in the pod that leads.
//!
//! Pure. Law: a tunnel leads to the pod that it was opened to and nowhere else; in front of somebody
//! else's address only a waypoint of that somebody may be.
//! Source: spec L4 §4.2, §4.3.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use shared::headers::{Authority, BadAuthority};
use shared::mesh::{AppTunnel, AppTunnelProtocol, Mesh, Service, Workload};

use crate::outbound::resolve::{OWN_PORTS, fronts};

/// Why a target is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not `address:port` or `host:port`.
    #[error(transparent)]
    Authority(#[from] BadAuthority),
    /// The address is not the pod's.
    #[error("ip mismatch: {local} != {asked}")]
    Foreign {
        /// The address that the peer reached.
        local: IpAddr,
        /// The address that it asks for.
        asked: IpAddr,
    },
    /// The mesh has no such service.
    #[error("unknown service: {0}")]
    ServiceUnknown(Box<str>),
    /// The service does not say which port of the pod is meant.
    #[error("no port for {0}")]
    PortUnresolved(Box<str>),
    /// The port is ztunnel's own: the connection would come back.
    #[error("port {0} is reserved")]
    PortReserved(u16),
    /// The application wants to be told an address that the service does not have.
    #[error("service {0} has no address")]
    NoVip(Box<str>),
}

/// Where a tunnel leads.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The application's socket, as policy and telemetry see it.
    pub application: SocketAddr,
    /// What to dial for it, if not that.
    pub loopback: Option<SocketAddr>,
    /// The destination for the PROXY header, where the application wants one.
    pub announced: Option<SocketAddr>,
    /// The service that was named.
    pub service: Option<Arc<Service>>,
}

/// The pod that a tunnel was opened to.
#[derive(Debug, Clone, Copy)]
pub struct Listener<'a> {
    /// Its workload.
    pub workload: &'a Workload,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
    /// The address that the peer reached.
    pub local: IpAddr,
    /// Whether an application that takes PROXY headers is reached over loopback.
    pub loopback: bool,
}

impl Listener<'_> {
    /// Where a tunnel to `authority` leads.
    ///
    /// # Errors
    /// [`Error`] says what is wrong with the target.
    pub fn deliver(&self, mesh: &Mesh, authority: &Authority) -> Result<Delivery, Error> {
        let (address, port, service) = match authority {
            Authority::Address(asked) => (self.own(mesh, asked.ip())?, asked.port(), None),
            Authority::Host(host, port) => {
                let service = mesh
                    .service_by_hostname(host, Some(self.workload.namespace()))
                    .ok_or_else(|| Error::ServiceUnknown(host.clone()))?;
                let port = self
                    .port(service, *port)
                    .ok_or_else(|| Error::PortUnresolved(authority.to_string().into()))?;
                (self.local, port, Some(service))
            }
        };
        if OWN_PORTS.contains(&port) {
            return Err(Error::PortReserved(port));
        }
        let service = service.cloned();
        let Some(tunnel) = self.workload.app_tunnel else {
            let application = SocketAddr::new(address, port);
            return Ok(Delivery { application, loopback: None, announced: None, service });
        };
        self.through_app_tunnel(tunnel, SocketAddr::new(address, port), authority, service)
    }

    fn through_app_tunnel(
        &self,
        tunnel: AppTunnel,
        application: SocketAddr,
        authority: &Authority,
        service: Option<Arc<Service>>,
    ) -> Result<Delivery, Error> {
        let port = tunnel.port.unwrap_or_else(|| application.port());
        let application = SocketAddr::new(application.ip(), port);
        if tunnel.protocol == AppTunnelProtocol::None {
            return Ok(Delivery { application, loopback: None, announced: None, service });
        }
        let announced = match (authority, &service) {
            (Authority::Address(asked), _) => *asked,
            (Authority::Host(host, port), service) => service
                .as_deref()
                .and_then(|service| announced_vip(service, &self.workload.network))
                .map(|vip| SocketAddr::new(vip, *port))
                .ok_or_else(|| Error::NoVip(host.clone()))?,
        };
        let loopback: IpAddr = match application {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let loopback = self.loopback.then(|| SocketAddr::new(loopback, port));
        Ok(Delivery { application, loopback, announced: Some(announced), service })
    }

    /// The address of the pod that `asked` means.
    fn own(&self, mesh: &Mesh, asked: IpAddr) -> Result<IpAddr, Error> {
        if asked == self.local || self.addresses.contains(&asked) {
            return Ok(asked);
        }
        // With an application tunnel the application decides over the target. Istio ztunnel forgets
        // weighted waypoints here; `fronts` does not.
        if self.workload.app_tunnel.is_some() || fronts(mesh, self.workload, asked) {
            return Ok(self.local);
        }
        Err(Error::Foreign { local: self.local, asked })
    }

    /// The pod's own port for a port of the service, else the service's target port.
    fn port(&self, service: &Service, port: u16) -> Option<u16> {
        let (_, ports) = self.workload.services.iter().find(|(key, _)| *key == service.key)?;
        let own = ports.iter().find(|(from, _)| *from == port).map(|(_, to)| *to);
        let target = || {
            service
                .ports
                .iter()
                .find(|known| known.port == port)
                .and_then(|known| known.target_port)
        };
        own.or_else(target).filter(|port| *port > 0)
    }

    /// The service that a connection to `application` was probably meant for: the one that the client
    /// names, if the pod belongs to it, else the first that leads to this port (spec L4 §11.4).
    pub fn guess_service(
        &self,
        mesh: &Mesh,
        application: SocketAddr,
        named: Option<&str>,
    ) -> Option<Arc<Service>> {
        let leads_here = |service: &&Arc<Service>| {
            let ports = service.ports.iter().map(|known| known.port);
            ports.filter_map(|port| self.port(service, port)).any(|port| port == application.port())
        };
        mesh.services_of(self.workload)
            .find(|service| named == Some(&*service.key.hostname))
            .or_else(|| mesh.services_of(self.workload).find(leads_here))
            .cloned()
    }
}

/// A virtual address of the service: of our network before others, IPv4 before IPv6.
fn announced_vip(service: &Service, network: &str) -> Option<IpAddr> {
    let vips = service.vips.iter();
    vips.min_by_key(|vip| (*vip.network != *network, vip.address.is_ipv6())).map(|vip| vip.address)
}

#[cfg(test)]
mod tests;
