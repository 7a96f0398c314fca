//! The pods of this node, as the feed knows them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::mesh::Uid;

/// A pod of this node.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalPod {
    /// Name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Service account, `default` when the pod names none.
    pub service_account: Arc<str>,
    /// Its workload in the mesh.
    pub uid: Uid,
    /// Path of its network namespace (annotation `culvert.dev/netns`), not yet checked.
    pub netns: Option<PathBuf>,
    /// Its addresses.
    pub ips: Box<[IpAddr]>,
    /// Whether it takes part in the mesh (Istio's labels).
    pub enrolled: bool,
    /// `ambient.istio.io/bypass-inbound-capture: "true"`: only HBONE is captured inbound.
    pub bypass_inbound: bool,
    /// `istio.io/reroute-virtual-interfaces`.
    pub reroute_interfaces: Box<[Arc<str>]>,
}
