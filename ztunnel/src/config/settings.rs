//! The settings: one table for the command line, the variables and the help.

use super::source::Source;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Flag, without dashes.
    pub flag: &'static str,
    /// Variable of ours.
    pub variable: &'static str,
    /// Variables of Istio's ztunnel that mean the same.
    pub istio: &'static [&'static str],
    /// How the value is called in the help.
    pub value: &'static str,
    /// Meaning and default.
    pub help: &'static str,
}

macro_rules! setting {
    ($flag:literal, $variable:literal, $istio:expr, $value:literal, $help:literal) => {
        &Setting { flag: $flag, variable: $variable, istio: $istio, value: $value, help: $help }
    };
}

pub(super) const MESH: &Setting = setting!(
    "mesh",
    "CULVERT_MESH",
    &[],
    "DIR",
    "mesh directory: Kubernetes YAML, read again when it changes"
);
pub(super) const NODE: &Setting = setting!(
    "node",
    "CULVERT_NODE",
    &["NODE_NAME"],
    "NAME",
    "name of this node (spec.nodeName of its pods)"
);
pub(super) const FEED: &Setting = setting!(
    "feed",
    "CULVERT_FEED",
    &[],
    "KIND",
    "where objects come from: dir (kube and xds are not part of this version)"
);
pub(super) const CA_ADDR: &Setting = setting!(
    "ca",
    "CULVERT_CA",
    &["CA_ADDRESS"],
    "ADDR",
    "certificate authority, host:port; with --join-token"
);
pub(super) const JOIN_TOKEN: &Setting = setting!(
    "join-token",
    "CULVERT_JOIN_TOKEN",
    &[],
    "FILE",
    "file with this node's join token (`ztunnel ca token NODE`)"
);
pub(super) const CERTS: &Setting = setting!(
    "certs",
    "CULVERT_CERTS",
    &[],
    "DIR",
    "certificates as files, instead of --ca; read again when they change"
);
pub(super) const TRUST_DOMAIN: &Setting = setting!(
    "trust-domain",
    "CULVERT_TRUST_DOMAIN",
    &["TRUST_DOMAIN"],
    "NAME",
    "first part of every identity [default: cluster.local]"
);
pub(super) const WORKERS: &Setting = setting!(
    "workers",
    "CULVERT_WORKERS",
    &["ZTUNNEL_WORKER_THREADS"],
    "N",
    "upper limit of data-plane threads, N, N% of CPUs, or 0 for all [default: 0]"
);
pub(super) const STATE: &Setting = setting!(
    "state",
    "CULVERT_STATE",
    &[],
    "DIR",
    "directory for admin.sock, kept private [default: /var/lib/culvert]"
);
pub(super) const ADMIN: &Setting = setting!(
    "admin",
    "CULVERT_ADMIN",
    &[],
    "ADDR",
    "read-only administration, loopback only [default: 127.0.0.1:15000]"
);
pub(super) const STATS: &Setting = setting!(
    "stats",
    "CULVERT_STATS",
    &[],
    "ADDR",
    "statistics [default: 127.0.0.1:15020, in Kubernetes [::]:15020]"
);
pub(super) const READY: &Setting =
    setting!("ready", "CULVERT_READY", &[], "ADDR", "readiness [default: [::]:15021]");
pub(super) const DEDICATED: &Setting = setting!(
    "dedicated",
    "CULVERT_DEDICATED",
    &["PROXY_WORKLOAD_INFO"],
    "NAMESPACE/POD",
    "serve this one pod, in the current network namespace and without capture"
);
pub(super) const POD_CONNECTIONS: &Setting = setting!(
    "pod-connections",
    "CULVERT_POD_CONNECTIONS",
    &[],
    "N",
    "connections of one pod at a time, more wait; 0: no limit [default: half of the descriptors]"
);
pub(super) const POD_CONNECTION_RATE: &Setting = setting!(
    "pod-connection-rate",
    "CULVERT_POD_CONNECTION_RATE",
    &[],
    "N",
    "new connections of one pod per second, more wait; 0: no limit [default: 5000]"
);
const LISTEN: &Setting =
    setting!("listen", "CULVERT_LISTEN", &[], "ADDR", "where the authority listens");
const LEAF_TTL: &Setting = setting!(
    "leaf-ttl",
    "CULVERT_LEAF_TTL",
    &[],
    "DURATION",
    "lifetime of certificates [default: 24h]"
);

/// Settings of `ztunnel run`.
pub const RUN: &[&Setting] = &[
    MESH,
    NODE,
    FEED,
    CA_ADDR,
    JOIN_TOKEN,
    CERTS,
    TRUST_DOMAIN,
    WORKERS,
    STATE,
    ADMIN,
    STATS,
    READY,
    DEDICATED,
    POD_CONNECTIONS,
    POD_CONNECTION_RATE,
];

/// Settings of `ztunnel ca`.
pub const CA: &[&Setting] = &[MESH, STATE, LISTEN, TRUST_DOMAIN, LEAF_TTL];

/// Variables of Istio's ztunnel that change what it does and have no effect here, with what holds.
const NOT_UNDERSTOOD: &[(&str, &str)] = &[
    ("XDS_ADDRESS", "objects come from the mesh directory"),
    ("LOCAL_XDS_PATH", "objects come from the mesh directory"),
    ("LOCAL_XDS", "objects come from the mesh directory"),
    ("XDS_ON_DEMAND", "everything is known ahead"),
    ("INPOD_UDS", "pods are named by the mesh directory"),
    ("PACKET_MARK", "the mark is always 1337"),
    ("ENABLE_PROXY", "the proxy always runs"),
    ("FAKE_CA", "use ztunnel ca or --certs"),
    ("SECRET_TTL", "the authority decides about lifetimes"),
    ("AUTH_TOKEN", "use --join-token"),
    ("CA_ROOT_CA", "the join token pins the root"),
    ("ALT_CA_HOSTNAME", "the join token pins the root"),
    ("CRL_PATH", "revocation is not part of this version"),
    ("UNSTABLE_ENABLE_SOCKS5", "SOCKS is not part of this version"),
    ("INPOD_PORT_REUSE", "ports are always shared"),
    ("PREFERED_SERVICE_NAMESPACE", "the client's own namespace comes first"),
    ("PROXY_CONFIG", "use flags"),
    ("COMPLIANCE_POLICY", "X25519MLKEM768 is offered first in any case"),
    ("AUTHZ_POLICY_INFO_LOGGING", "use RUST_LOG"),
];

pub(super) fn without_effect(source: &impl Source) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut names = source.names();
    names.sort();
    for name in names.iter().filter(|name| name.starts_with("CULVERT_")) {
        if !RUN.iter().chain(CA).any(|setting| setting.variable == *name) {
            warnings.push(format!("variable {name} is not known and has no effect"));
        }
    }
    for (name, instead) in NOT_UNDERSTOOD {
        if source.variable(name).is_some() {
            warnings.push(format!("variable {name} has no effect here: {instead}"));
        }
    }
    warnings
}
