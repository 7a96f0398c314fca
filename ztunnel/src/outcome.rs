//! Every failure of a connection has one cause and one name.
//!
//! Invariants: made from module errors by exhaustive matches, so that a new failure cannot ship
//! without a name; each name is explained in `docs/causes.md` (a test compares) and keeps its meaning.
//! Not here: the words of a failure, which are its error's `Display`.
//! Source: design D7, D8; response flags as in Istio ztunnel (spec L4 §11.3).

mod mapping;

pub use mapping::of_copy;

use http::StatusCode;
use shared::telemetry::traffic::ResponseFlag;

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The side that opened the connection.
    Downstream,
    /// The side that should have taken it.
    Upstream,
    /// The configuration of the mesh.
    Mesh,
    /// This proxy or its surroundings.
    Us,
}

/// Whether the connection may be run again elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The answer would be the same.
    Never,
    /// As long as no byte was delivered.
    IfUnsent,
    /// If the tunnel connection had been used before: it may just have been stale.
    IfReused,
    /// Nothing was delivered, for certain.
    Yes,
}

/// How a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outcome {
    code: &'static str,
    blame: Blame,
    retry: Retry,
    flag: ResponseFlag,
    status: StatusCode,
}

impl Outcome {
    /// The stable name, `UPPER_SNAKE`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Who has to act.
    pub fn blame(&self) -> Blame {
        self.blame
    }

    /// Whether it may be run again elsewhere.
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// The word of the metrics.
    pub fn flag(&self) -> ResponseFlag {
        self.flag
    }

    /// What a peer is answered before the tunnel stands.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

/// Declares the outcomes, and the list of them all.
macro_rules! outcomes {
    ($($code:ident: $blame:ident, $retry:ident, $flag:ident, $status:ident;)*) => {
        impl Outcome {
            $(
                #[doc = concat!("See `", stringify!($code), "` in `docs/causes.md`.")]
                pub const $code: Self = Self {
                    code: stringify!($code),
                    blame: Blame::$blame,
                    retry: Retry::$retry,
                    flag: ResponseFlag::$flag,
                    status: StatusCode::$status,
                };
            )*

            /// Every outcome.
            pub const ALL: &'static [Self] = &[$(Self::$code),*];
        }
    };
}

outcomes! {
    // Finding the way.
    RECURSIVE_CALL: Downstream, Never, Connect, SERVICE_UNAVAILABLE;
    SOURCE_UNKNOWN: Mesh, IfUnsent, Connect, SERVICE_UNAVAILABLE;
    NO_HEALTHY_UPSTREAM: Upstream, Never, Connect, SERVICE_UNAVAILABLE;
    WAYPOINT_UNKNOWN: Mesh, Never, Connect, SERVICE_UNAVAILABLE;
    WAYPOINT_UNHEALTHY: Upstream, Never, Connect, SERVICE_UNAVAILABLE;
    GATEWAY_MISSING: Mesh, Never, Connect, SERVICE_UNAVAILABLE;
    GATEWAY_UNKNOWN: Mesh, Never, Connect, SERVICE_UNAVAILABLE;
    GATEWAY_UNHEALTHY: Upstream, Never, Connect, SERVICE_UNAVAILABLE;
    SERVICE_REQUIRED: Mesh, Never, Connect, SERVICE_UNAVAILABLE;
    SERVICE_HIDDEN: Mesh, Never, Connect, SERVICE_UNAVAILABLE;
    ADDRESS_MISSING: Mesh, IfUnsent, Connect, SERVICE_UNAVAILABLE;
    NAME_UNRESOLVED: Mesh, IfUnsent, Connect, SERVICE_UNAVAILABLE;
    // Reaching the other side.
    CONNECT_FAILED: Upstream, IfUnsent, Connect, SERVICE_UNAVAILABLE;
    CONNECT_TIMEOUT: Upstream, IfUnsent, Connect, SERVICE_UNAVAILABLE;
    IDENTITY_UNAVAILABLE: Us, Never, IdentityError, SERVICE_UNAVAILABLE;
    TUNNEL_CONNECT_FAILED: Upstream, IfUnsent, Connect, SERVICE_UNAVAILABLE;
    TUNNEL_CONNECT_TIMEOUT: Upstream, IfUnsent, NetworkPolicy, SERVICE_UNAVAILABLE;
    TUNNEL_TLS_FAILED: Upstream, IfUnsent, TlsFailure, SERVICE_UNAVAILABLE;
    TUNNEL_TLS_TIMEOUT: Upstream, IfUnsent, TlsFailure, SERVICE_UNAVAILABLE;
    TUNNEL_HTTP2_FAILED: Upstream, IfUnsent, H2HandshakeFailure, SERVICE_UNAVAILABLE;
    TUNNEL_LOST: Upstream, IfReused, Connect, SERVICE_UNAVAILABLE;
    TUNNEL_ANSWER_TIMEOUT: Upstream, IfUnsent, Connect, SERVICE_UNAVAILABLE;
    TUNNEL_REFUSED: Upstream, Yes, Connect, SERVICE_UNAVAILABLE;
    PEER_REJECTED_TARGET: Upstream, Never, Connect, SERVICE_UNAVAILABLE;
    PEER_DENIED: Upstream, Never, Connect, SERVICE_UNAVAILABLE;
    PEER_UNAVAILABLE: Upstream, Yes, Connect, SERVICE_UNAVAILABLE;
    PEER_UNEXPECTED_STATUS: Upstream, Never, Connect, SERVICE_UNAVAILABLE;
    // Taking a connection in.
    CLIENT_TLS_FAILED: Downstream, Never, TlsFailure, SERVICE_UNAVAILABLE;
    CLIENT_TLS_TIMEOUT: Downstream, Never, TlsFailure, SERVICE_UNAVAILABLE;
    CLIENT_HTTP2_FAILED: Downstream, Never, H2HandshakeFailure, SERVICE_UNAVAILABLE;
    CLIENT_GONE: Downstream, Never, Connect, SERVICE_UNAVAILABLE;
    REQUEST_INVALID: Downstream, Never, Connect, BAD_REQUEST;
    AUTHORITY_INVALID: Downstream, Never, Connect, BAD_REQUEST;
    TARGET_FOREIGN: Downstream, Never, Connect, BAD_REQUEST;
    WORKLOAD_UNKNOWN: Mesh, IfUnsent, Connect, SERVICE_UNAVAILABLE;
    POD_GONE: Mesh, Yes, Connect, SERVICE_UNAVAILABLE;
    SERVICE_UNKNOWN: Mesh, Never, Connect, SERVICE_UNAVAILABLE;
    PORT_UNRESOLVED: Mesh, Never, Connect, SERVICE_UNAVAILABLE;
    PORT_RESERVED: Downstream, Never, Connect, SERVICE_UNAVAILABLE;
    SERVICE_ADDRESS_MISSING: Mesh, Never, Connect, SERVICE_UNAVAILABLE;
    POLICY_DENIED: Mesh, Never, Denied, UNAUTHORIZED;
    POLICY_UNKNOWN: Mesh, Never, Denied, UNAUTHORIZED;
    WAYPOINT_REQUIRED: Mesh, Never, Denied, UNAUTHORIZED;
    APPLICATION_CONNECT_FAILED: Upstream, Yes, Connect, SERVICE_UNAVAILABLE;
    APPLICATION_CONNECT_TIMEOUT: Upstream, Yes, Connect, SERVICE_UNAVAILABLE;
    // While bytes flow.
    POLICY_CHANGED: Mesh, Never, Denied, UNAUTHORIZED;
    UNDELIVERED: Upstream, Yes, Connect, SERVICE_UNAVAILABLE;
    SOCKET_FAILED: Us, Never, Connect, SERVICE_UNAVAILABLE;
    STREAM_LOST: Upstream, Never, Connect, SERVICE_UNAVAILABLE;
    DRAINED: Us, Never, Connect, SERVICE_UNAVAILABLE;
}

#[cfg(test)]
mod tests;
