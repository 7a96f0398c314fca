//! What the operator wants: flags, then `CULVERT_` variables, then Istio's, then defaults.
//!
//! Not here: what the other program wants alike (`shared::config`).

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;
use shared::config::{
    self, Feed, Identity, Names, ParseError, Process, Reader, Servers, Setting, Source, Tunnel,
};

const GATEWAY: &Setting =
    &Setting::new("gateway", "CULVERT_GATEWAY", &[], "NAMESPACE/NAME", "the Gateway to serve");
const LISTEN: &Setting = &Setting::new(
    "listen",
    "CULVERT_LISTEN",
    &[],
    "ADDR",
    "where tunnels are accepted [default: [::]:15008]",
);

/// Settings of `waypoint run`.
pub const RUN: &[&Setting] = &[
    config::MESH,
    GATEWAY,
    LISTEN,
    config::FEED,
    config::CA_ADDR,
    config::JOIN_TOKEN,
    config::CERTS,
    config::TRUST_DOMAIN,
    config::WORKERS,
    config::STATE,
    config::ADMIN,
    config::STATS,
    config::READY,
];

/// Everything that `waypoint run` goes by; shown in `/config_dump`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Where the picture of the mesh comes from.
    pub feed: Feed,
    /// The Gateway that is served.
    pub gateway: GatewayName,
    /// Where tunnels are accepted; default `[::]:15008`. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The pod that this process is (`POD_NAME`), among those of the Gateway; any of them when unset.
    pub pod: Option<Box<str>>,
    /// Who this waypoint is.
    pub identity: Identity,
    /// The process.
    pub process: Process,
    /// Administrative servers.
    pub servers: Servers,
    /// Names of this part of the mesh.
    pub names: Names,
    /// Limits of tunnels.
    pub tunnel: Tunnel,
}

/// A Gateway by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Config {
    /// Reads everything, or says everything that is wrong.
    ///
    /// # Errors
    /// All mistakes, in the order of the settings.
    pub fn parse(source: &impl Source) -> Result<Self, Vec<ParseError>> {
        let mut read = Reader::new(source);
        let feed = read.feed();
        let gateway = gateway(&mut read);
        let listen = read.address(LISTEN, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 15008)));
        let identity = read.identity();
        let pod = read.variable("POD_NAME").map(String::into_boxed_str);
        let process = read.process();
        let servers = read.servers(true);
        let names = read.names();
        let tunnel = read.tunnel();
        read.refuse_tls12();
        let errors = read.into_errors();
        match (feed, gateway, identity) {
            (Some(feed), Some(gateway), Some(identity)) if errors.is_empty() => {
                Ok(Self { feed, gateway, listen, pod, identity, process, servers, names, tunnel })
            }
            _ => Err(errors),
        }
    }
}

/// What was given and has no effect: unknown `CULVERT_` variables.
pub fn warnings(source: &impl Source) -> Vec<String> {
    config::unknown_variables(source, RUN.iter().copied())
}

fn gateway<S: Source>(read: &mut Reader<'_, S>) -> Option<GatewayName> {
    let Some((origin, value)) = read.text(GATEWAY) else {
        read.missing(GATEWAY, "a waypoint serves what is bound to its Gateway");
        return None;
    };
    match value.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Some(GatewayName { namespace: namespace.into(), name: name.into() })
        }
        _ => {
            read.wrong(&origin, &value, "does not name a Gateway, write NAMESPACE/NAME");
            None
        }
    }
}
