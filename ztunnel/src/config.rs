//! What the operator wants: flags, then `CULVERT_` variables, then Istio's, then defaults.
//!
//! Not here: what the other program wants alike (`shared::config`).

mod settings;

use std::time::Duration;

use serde::Serialize;
use shared::config::{Feed, Identity, Names, ParseError, Process, Reader, Servers, Source, Tunnel};

use crate::pods::share::{Limits, all_but_one};
use crate::redirect::{KeepSource, Keepalive, sockets};

pub use self::settings::{CA, RUN};

/// Everything that `ztunnel run` goes by; shown in `/config_dump`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Where the picture of the mesh comes from. Without it nothing is known and nothing served.
    pub feed: Feed,
    /// Name of this node, as `spec.nodeName` has it. `None` only in dedicated mode. A wrong name
    /// makes the node's pods invisible.
    pub node: Option<Box<str>>,
    /// Who the pods are.
    pub identity: Identity,
    /// The process.
    pub process: Process,
    /// Administrative servers.
    pub servers: Servers,
    /// Serve this one pod, in the namespace of the process, instead of the pods of the node.
    pub dedicated: Option<PodRef>,
    /// What one pod may take of the node.
    pub pods: Limits,
    /// Connections between two pods of this process need no tunnel. False: all have one. Where a
    /// `NetworkPolicy` selects either pod there is a tunnel all the same.
    pub same_node_handover: bool,
    /// Names of this part of the mesh.
    pub names: Names,
    /// Limits of tunnels.
    pub tunnel: Tunnel,
    /// Sockets in the pods.
    pub sockets: sockets::Options,
}

/// A pod by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRef {
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
}

impl Config {
    /// Reads everything, or says everything that is wrong.
    ///
    /// # Errors
    /// All mistakes, in the order of the settings.
    pub fn parse(source: &impl Source) -> Result<Self, Vec<ParseError>> {
        let mut read = Reader::new(source);
        let dedicated = dedicated(&mut read);
        let node = read.text(settings::NODE).map(|(_, node)| node.into_boxed_str());
        let feed = read.feed();
        if node.is_none() && dedicated.is_none() {
            read.missing(
                settings::NODE,
                "the pods of this node are served, so it must have a name",
            );
        }
        let identity = read.identity();
        let process = read.process();
        let sockets = sockets(&mut read);
        let servers = read.servers(sockets.ipv6);
        let pods = pod_limits(&mut read, process.workers);
        let same_node_handover = read.switch(settings::SAME_NODE_HANDOVER);
        let names = read.names();
        let tunnel = read.tunnel();
        read.refuse_tls12();
        let errors = read.into_errors();
        match (feed, identity) {
            (Some(feed), Some(identity)) if errors.is_empty() => Ok(Self {
                feed,
                node,
                identity,
                process,
                servers,
                dedicated,
                pods,
                same_node_handover,
                names,
                tunnel,
                sockets,
            }),
            _ => Err(errors),
        }
    }
}

/// What was given and has no effect: unknown `CULVERT_` variables, and variables of Istio's ztunnel
/// that would change something here if they were understood.
pub fn warnings(source: &impl Source) -> Vec<String> {
    settings::without_effect(source)
}

fn dedicated<S: Source>(read: &mut Reader<'_, S>) -> Option<PodRef> {
    match read.variable("PROXY_MODE").as_deref() {
        None | Some("shared" | "dedicated") => {}
        Some(mode) => read.wrong("PROXY_MODE", mode, "is not a mode, use shared or dedicated"),
    }
    let Some((origin, value)) = read.text(settings::DEDICATED) else {
        if read.variable("PROXY_MODE").as_deref() == Some("dedicated") {
            read.missing(settings::DEDICATED, "PROXY_MODE=dedicated needs to know the pod");
        }
        return None;
    };
    // Istio's form has the service account as a third part, which the mesh knows better.
    let mut parts = value.splitn(3, '/');
    let (namespace, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if namespace.is_empty() || name.is_empty() {
        read.wrong(&origin, &value, "does not name a pod, write NAMESPACE/POD");
        return None;
    }
    Some(PodRef { namespace: namespace.into(), name: name.into() })
}

/// What one pod may take of the node.
fn pod_limits<S: Source>(read: &mut Reader<'_, S>, workers: usize) -> Limits {
    let default = Limits { workers: all_but_one(workers), ..Limits::default() };
    let turn = u64::try_from(default.turn.as_micros()).unwrap_or(u64::MAX);
    Limits {
        connections: read.count(settings::POD_CONNECTIONS, default.connections),
        per_second: read.count(settings::POD_CONNECTION_RATE, default.per_second),
        window_bytes: read.count(settings::POD_WINDOW, default.window_bytes),
        workers: read.count(settings::POD_WORKERS, default.workers),
        turn: Duration::from_micros(read.count(settings::POD_TURN, turn)),
    }
}

fn sockets<S: Source>(read: &mut Reader<'_, S>) -> sockets::Options {
    let usual = Keepalive::default();
    let keepalive = Keepalive {
        time: read.seconds("KEEPALIVE_TIME", usual.time),
        interval: read.seconds("KEEPALIVE_INTERVAL", usual.interval),
        // Linux: MAX_TCP_KEEPCNT.
        retries: read.number("KEEPALIVE_RETRIES", 1..=127, usual.retries),
    };
    let Keepalive { time, interval, retries } = keepalive;
    sockets::Options {
        keepalive: read.flag("KEEPALIVE_ENABLED").unwrap_or(true).then_some(keepalive),
        user_timeout: read
            .flag("USER_TIMEOUT_ENABLED")
            .unwrap_or(false)
            .then(|| time + interval * retries),
        ipv6: read.flag("IPV6_ENABLED").unwrap_or(true),
        keep_source: match read.flag("ENABLE_ORIG_SRC") {
            None => KeepSource::IfPermitted,
            Some(true) => KeepSource::Required,
            Some(false) => KeepSource::Never,
        },
    }
}

#[cfg(test)]
mod tests;
