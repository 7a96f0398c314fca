//! The settings: one table for the command line, the variables and the help.

use shared::config::{
    ADMIN, CA_ADDR, CERTS, FEED, JOIN_TOKEN, MESH, READY, STATE, STATS, Setting, Source,
    TRUST_DOMAIN, WORKERS, unknown_variables,
};

pub(super) const NODE: &Setting = &Setting::new(
    "node",
    "CULVERT_NODE",
    &["NODE_NAME"],
    "NAME",
    "name of this node (spec.nodeName of its pods)",
);
pub(super) const DEDICATED: &Setting = &Setting::new(
    "dedicated",
    "CULVERT_DEDICATED",
    &["PROXY_WORKLOAD_INFO"],
    "NAMESPACE/POD",
    "serve this one pod, in the current network namespace and without capture",
);
pub(super) const POD_CONNECTIONS: &Setting = &Setting::new(
    "pod-connections",
    "CULVERT_POD_CONNECTIONS",
    &[],
    "N",
    "connections of one pod at a time, more wait; 0: no limit [default: half of the descriptors]",
);
pub(super) const POD_CONNECTION_RATE: &Setting = &Setting::new(
    "pod-connection-rate",
    "CULVERT_POD_CONNECTION_RATE",
    &[],
    "N",
    "new connections of one pod per second, more wait; 0: no limit [default: 5000]",
);
pub(super) const POD_WINDOW: &Setting = &Setting::new(
    "pod-window",
    "CULVERT_POD_WINDOW",
    &[],
    "BYTES",
    "what the windows of one pod's streams may grow by together; 0: no limit [default: 268435456]",
);
pub(super) const POD_WORKERS: &Setting = &Setting::new(
    "pod-workers",
    "CULVERT_POD_WORKERS",
    &[],
    "N",
    "workers that one pod may keep busy while others use them; 0: no limit [default: all but one]",
);
pub(super) const POD_TURN: &Setting = &Setting::new(
    "pod-turn",
    "CULVERT_POD_TURN",
    &[],
    "MICROSECONDS",
    "how long one pod's work runs before that of others on its worker; 0: no limit [default: 500]",
);
pub(super) const SAME_NODE_HANDOVER: &Setting = &Setting::new(
    "same-node-handover",
    "CULVERT_SAME_NODE_HANDOVER",
    &[],
    "BOOL",
    "carry connections between two pods of this node without a tunnel [default: false]",
);
const LISTEN: &Setting =
    &Setting::new("listen", "CULVERT_LISTEN", &[], "ADDR", "where the authority listens");
const LEAF_TTL: &Setting = &Setting::new(
    "leaf-ttl",
    "CULVERT_LEAF_TTL",
    &[],
    "DURATION",
    "lifetime of certificates [default: 24h]",
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
    POD_WINDOW,
    POD_WORKERS,
    POD_TURN,
    SAME_NODE_HANDOVER,
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
    let known = RUN.iter().chain(CA).copied();
    let mut warnings = unknown_variables(source, known);
    for (name, instead) in NOT_UNDERSTOOD {
        if source.variable(name).is_some() {
            warnings.push(format!("variable {name} has no effect here: {instead}"));
        }
    }
    warnings
}
