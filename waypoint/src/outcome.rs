//! Every failure of a request or a tunnel has one cause and one name.
//!
//! Invariants: made from module errors by exhaustive matches, so that a new failure cannot ship
//! without a name; each name is explained in `docs/causes.md` (a test compares) and keeps its meaning.
//! Source: design D7, D8; response flags as in Envoy (spec L7 §3.11, §5.4).

use http::StatusCode;

use crate::request::{BadRequest, Failure};
use crate::tcp::Over;
use crate::tunnel::{AcceptError, NotServed};
use crate::upstream;

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client.
    Downstream,
    /// The endpoint.
    Upstream,
    /// The configuration of the mesh.
    Mesh,
    /// This proxy or its surroundings.
    Us,
}

/// How a request or a tunnel failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outcome {
    code: &'static str,
    blame: Blame,
    flag: &'static str,
    status: u16,
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

    /// Envoy's word for the log and the metrics.
    pub fn flag(&self) -> &'static str {
        self.flag
    }

    /// What the client is answered.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

macro_rules! outcomes {
    ($($name:ident, $blame:ident, $flag:literal, $status:literal;)*) => {
        impl Outcome {
            $(
                #[doc = concat!("`", stringify!($name), "`, explained in `docs/causes.md`.")]
                pub const $name: Self = Self {
                    code: stringify!($name),
                    blame: Blame::$blame,
                    flag: $flag,
                    status: $status,
                };
            )*

            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

outcomes! {
    // Tunnels.
    INSTANCE_UNKNOWN, Mesh, "NR", 503;
    IDENTITY_UNAVAILABLE, Us, "UF", 503;
    CLIENT_TLS_FAILED, Downstream, "DPE", 503;
    CLIENT_HTTP2_FAILED, Downstream, "DPE", 400;
    REQUEST_INVALID, Downstream, "DPE", 400;
    HEADERS_TOO_LARGE, Downstream, "DPE", 431;
    AUTHORITY_INVALID, Downstream, "NR", 400;
    TARGET_UNKNOWN, Mesh, "NR", 404;
    NOT_BOUND, Mesh, "NR", 400;
    PORT_UNKNOWN, Mesh, "NR", 404;
    // Requests.
    MESSAGE_MALFORMED, Downstream, "DPE", 400;
    FRAMING_INVALID, Downstream, "DPE", 400;
    CODING_UNSUPPORTED, Downstream, "DPE", 501;
    HOST_INVALID, Downstream, "DPE", 400;
    PATH_INVALID, Downstream, "DPE", 400;
    VERSION_UNSUPPORTED, Downstream, "DPE", 426;
    METHOD_UNSUPPORTED, Downstream, "NR", 404;
    UPGRADE_UNSUPPORTED, Downstream, "DPE", 403;
    POLICY_DENIED, Downstream, "-", 403;
    POLICY_CHANGED, Downstream, "-", 403;
    ROUTE_NOT_FOUND, Mesh, "NR", 404;
    RATE_LIMITED, Downstream, "RL", 429;
    FAULT_DELAYED, Mesh, "DI", 0;
    FAULT_ABORTED, Mesh, "FI", 0;
    FILTER_UNSUPPORTED, Mesh, "NC", 500;
    BACKEND_INVALID, Mesh, "NC", 500;
    BACKENDS_MISSING, Mesh, "NC", 500;
    BACKEND_UNKNOWN, Mesh, "NC", 503;
    SUBSET_UNKNOWN, Mesh, "NC", 503;
    NO_HEALTHY_UPSTREAM, Upstream, "UH", 503;
    UPSTREAM_OVERFLOW, Mesh, "UO", 503;
    UPSTREAM_CONNECT_FAILED, Upstream, "UF", 503;
    UPSTREAM_REFUSED, Upstream, "UF", 503;
    UPSTREAM_CLOSED, Upstream, "UC", 503;
    DELIVERY_UNKNOWN, Upstream, "UC", 503;
    RETRIES_EXHAUSTED, Upstream, "URX", 503;
    RETRY_BUDGET_EXHAUSTED, Upstream, "UO", 503;
    UPSTREAM_PROTOCOL, Upstream, "UPE", 502;
    UPSTREAM_CUT, Upstream, "UC", 0;
    CONNECTION_IDLE, Mesh, "-", 0;
    CONNECTION_TOO_OLD, Mesh, "DT", 0;
    REQUEST_TIMEOUT, Upstream, "UT", 504;
    BACKEND_TIMEOUT, Upstream, "UT", 504;
    UPGRADE_REFUSED, Upstream, "UPE", 502;
    CLIENT_GONE, Downstream, "DC", 0;
}

impl From<&AcceptError> for Outcome {
    fn from(error: &AcceptError) -> Self {
        match error {
            AcceptError::Nobody => Self::INSTANCE_UNKNOWN,
            AcceptError::Identity(_) | AcceptError::IdentityTimeout => Self::IDENTITY_UNAVAILABLE,
            AcceptError::Tls(_) | AcceptError::TlsTimeout => Self::CLIENT_TLS_FAILED,
            AcceptError::Tunnel(_) => Self::CLIENT_HTTP2_FAILED,
        }
    }
}

impl From<&NotServed> for Outcome {
    fn from(error: &NotServed) -> Self {
        match error {
            NotServed::Request(shared::hbone::BadRequest::NotConnect) => Self::REQUEST_INVALID,
            NotServed::Request(shared::hbone::BadRequest::TooLarge { .. }) => {
                Self::HEADERS_TOO_LARGE
            }
            NotServed::Nobody => Self::INSTANCE_UNKNOWN,
            NotServed::Authority(_) => Self::AUTHORITY_INVALID,
            NotServed::Unknown(_) => Self::TARGET_UNKNOWN,
            NotServed::NotBound(_) => Self::NOT_BOUND,
            NotServed::Port(..) => Self::PORT_UNKNOWN,
        }
    }
}

impl From<&BadRequest> for Outcome {
    fn from(error: &BadRequest) -> Self {
        match error {
            BadRequest::BothFramings | BadRequest::Body(_) => Self::FRAMING_INVALID,
            BadRequest::Coding(_) => Self::CODING_UNSUPPORTED,
            BadRequest::Host(_) => Self::HOST_INVALID,
            BadRequest::Path(_) => Self::PATH_INVALID,
            BadRequest::Version => Self::VERSION_UNSUPPORTED,
            BadRequest::Connect => Self::METHOD_UNSUPPORTED,
            BadRequest::Upgrade(_) => Self::UPGRADE_UNSUPPORTED,
            BadRequest::TooManyHeaders(_) => Self::HEADERS_TOO_LARGE,
        }
    }
}

impl From<&upstream::Error> for Outcome {
    fn from(error: &upstream::Error) -> Self {
        match error {
            upstream::Error::Identity(_) => Self::IDENTITY_UNAVAILABLE,
            upstream::Error::Dial(error) => Self::from(&**error),
            upstream::Error::Connect(_)
            | upstream::Error::ConnectTimeout
            | upstream::Error::Tls(_)
            | upstream::Error::TlsTimeout
            | upstream::Error::BackendTls(_)
            | upstream::Error::BackendTlsTimeout
            | upstream::Error::Tunnel(_) => Self::UPSTREAM_CONNECT_FAILED,
            upstream::Error::Status { .. } => Self::UPSTREAM_REFUSED,
        }
    }
}

impl From<&Over> for Outcome {
    fn from(over: &Over) -> Self {
        match over {
            Over::Idle(_) => Self::CONNECTION_IDLE,
            Over::Old(_) => Self::CONNECTION_TOO_OLD,
        }
    }
}

impl From<&Failure> for Outcome {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Bad(error) => Self::from(error),
            Failure::Denied(_) => Self::POLICY_DENIED,
            Failure::Revoked(_) => Self::POLICY_CHANGED,
            Failure::NoRoute => Self::ROUTE_NOT_FOUND,
            Failure::Aborted(_) => Self::FAULT_ABORTED,
            Failure::Filter(_) => Self::FILTER_UNSUPPORTED,
            Failure::RateLimited(_) => Self::RATE_LIMITED,
            Failure::Rewrite(_) => Self::PATH_INVALID,
            Failure::Backend(_) => Self::BACKEND_INVALID,
            Failure::NoBackends => Self::BACKENDS_MISSING,
            Failure::ServiceUnknown(_) | Failure::DestinationUnknown(_) => Self::BACKEND_UNKNOWN,
            Failure::SubsetUnknown(_) => Self::SUBSET_UNKNOWN,
            Failure::NoEndpoint(_) => Self::NO_HEALTHY_UPSTREAM,
            Failure::Overflow(_) => Self::UPSTREAM_OVERFLOW,
            Failure::Connect(error) => Self::from(error),
            Failure::Closed(_) => Self::UPSTREAM_CLOSED,
            Failure::DeliveryUnknown(_) => Self::DELIVERY_UNKNOWN,
            Failure::BudgetExhausted(_) => Self::RETRY_BUDGET_EXHAUSTED,
            Failure::Protocol(_) | Failure::Switched => Self::UPSTREAM_PROTOCOL,
            Failure::RequestTimeout(_) => Self::REQUEST_TIMEOUT,
            Failure::BackendTimeout(_) => Self::BACKEND_TIMEOUT,
            Failure::UpgradeRefused(_) => Self::UPGRADE_REFUSED,
            Failure::ClientGone => Self::CLIENT_GONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_explained_in_the_documentation() {
        let text = include_str!("../../docs/causes.md");
        for outcome in Outcome::ALL {
            let code = outcome.code();
            assert!(text.contains(&format!("`{code}`")), "docs/causes.md says nothing of {code}");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Outcome::ALL.iter().map(Outcome::code).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Outcome::ALL.len());
    }
}
