//! The pods of this node: enrolled, served, withdrawn.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use shared::identity::SpiffeId;

use crate::redirect::Sockets;

/// The name of a pod, with the account that gives it its identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodName {
    /// Kubernetes namespace.
    pub namespace: Arc<str>,
    /// Name within the namespace.
    pub name: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod that this process serves, as the data path sees it: shared, never changed.
#[derive(Debug)]
pub struct Pod {
    /// Which pod.
    pub workload: PodName,
    /// Who it is to its peers.
    pub identity: SpiffeId,
    /// Its addresses; a tunnel may only lead to these.
    pub ips: Vec<IpAddr>,
    /// Opens connections as this pod.
    pub sockets: Sockets,
}
