//! The labels of a connection: names, order, and the values that are fixed words.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Names, in the order in which they are given out. `response_flags` comes from the way it ended.
pub(super) const NAMES: [&str; 27] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
    "source_region",
    "source_zone",
    "destination_region",
    "destination_zone",
];

/// Where `response_flags` stands in [`NAMES`].
pub(super) const FLAGS: usize = 21;

/// Labels of a connection before it ended. Empty text reads `unknown`.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// Which side counts.
    pub reporter: Reporter,
    /// Who opened it.
    pub source: Party<'a>,
    /// Who serves it.
    pub destination: Party<'a>,
    /// The service that was meant.
    pub service: Service<'a>,
    /// Whether the hop is mutual TLS.
    pub security: Security,
}

/// A workload at one end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Party<'a> {
    /// Name of the workload.
    pub workload: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Canonical service; also the `app` label.
    pub canonical_service: &'a str,
    /// Canonical revision; also the `version` label.
    pub canonical_revision: &'a str,
    /// SPIFFE identity, without a promise unless the hop is mutual TLS.
    pub principal: &'a str,
    /// Cluster.
    pub cluster: &'a str,
    /// Region.
    pub region: &'a str,
    /// Zone.
    pub zone: &'a str,
}

/// A service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Service<'a> {
    /// Host name.
    pub host: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
}

/// Which side of the connection counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The side of the application that opened it.
    Source,
    /// The side of the application that serves it.
    Destination,
    /// The HTTP proxy between them.
    Waypoint,
}

impl Reporter {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Waypoint => "waypoint",
        }
    }
}

/// Whether the hop is mutual TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// It is.
    MutualTls,
    /// It is plaintext, or nothing is known.
    Unknown,
}

/// How a connection ended, in the words of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseFlag {
    /// Without failure.
    None,
    /// Policy forbade it, at the start or later.
    Denied,
    /// It could not be connected, was refused, or was drained.
    Connect,
    /// TLS failed.
    TlsFailure,
    /// The tunnel's HTTP/2 failed.
    H2HandshakeFailure,
    /// The tunnel's TCP connect timed out: often a NetworkPolicy without port 15008.
    NetworkPolicy,
    /// Our own certificate is not there.
    IdentityError,
    /// A certificate was revoked.
    CertRevoked,
}

impl ResponseFlag {
    /// All flags, in the order of their index.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Denied,
        Self::Connect,
        Self::TlsFailure,
        Self::H2HandshakeFailure,
        Self::NetworkPolicy,
        Self::IdentityError,
        Self::CertRevoked,
    ];

    /// The value of the label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Denied => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::CertRevoked => "CERT_REVOKED",
        }
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// Values in the order of [`NAMES`], with an empty place for the flags.
pub(super) type Values<'a> = [&'a str; NAMES.len()];
/// The same, owned.
pub(super) type Owned = Box<[Box<str>]>;

impl<'a> Labels<'a> {
    pub(super) fn values(&self) -> Values<'a> {
        let (from, to) = (&self.source, &self.destination);
        [
            self.reporter.as_str(),
            from.workload,
            from.canonical_service,
            from.canonical_revision,
            from.namespace,
            from.principal,
            from.canonical_service,
            from.canonical_revision,
            from.cluster,
            self.service.host,
            self.service.namespace,
            self.service.name,
            to.workload,
            to.canonical_service,
            to.canonical_revision,
            to.namespace,
            to.principal,
            to.canonical_service,
            to.canonical_revision,
            to.cluster,
            "tcp",
            "",
            match self.security {
                Security::MutualTls => "mutual_tls",
                Security::Unknown => "unknown",
            },
            from.region,
            from.zone,
            to.region,
            to.zone,
        ]
    }
}

pub(super) fn hash(values: &Values<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    values.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn same(owned: &[Box<str>], values: &Values<'_>) -> bool {
    owned.iter().zip(values).all(|(one, other)| **one == **other)
}

pub(super) fn owned(values: &Values<'_>) -> Owned {
    values.iter().map(|value| Box::from(*value)).collect()
}
