//! From the errors of the modules to outcomes. No match here has a catch-all.

use http::StatusCode;
use shared::authz;
use shared::hbone::{self, Reason, StreamError};

use crate::copy::{self, Cut, Side};
use crate::inbound;
use crate::node::permits::Denial;
use crate::outbound::resolve::{Trouble, Unroutable};
use crate::outbound::{self, dial};
use crate::outcome::Outcome;

impl From<&Unroutable> for Outcome {
    fn from(error: &Unroutable) -> Self {
        match error {
            Unroutable::Loop => Self::RECURSIVE_CALL,
            Unroutable::NoHealthyUpstream(_) => Self::NO_HEALTHY_UPSTREAM,
            Unroutable::Waypoint(_, Trouble::Unknown) => Self::WAYPOINT_UNKNOWN,
            Unroutable::Waypoint(_, Trouble::NoInstance) => Self::WAYPOINT_UNHEALTHY,
            Unroutable::NoGateway(_) => Self::GATEWAY_MISSING,
            Unroutable::Gateway(_, Trouble::Unknown) => Self::GATEWAY_UNKNOWN,
            Unroutable::Gateway(_, Trouble::NoInstance) => Self::GATEWAY_UNHEALTHY,
            Unroutable::NoService(_) => Self::SERVICE_REQUIRED,
            Unroutable::NoAddress(_) => Self::ADDRESS_MISSING,
            Unroutable::NotVisible(_) => Self::SERVICE_HIDDEN,
        }
    }
}

impl From<&outbound::Error> for Outcome {
    fn from(error: &outbound::Error) -> Self {
        match error {
            outbound::Error::SourceUnknown(_) => Self::SOURCE_UNKNOWN,
            outbound::Error::Unroutable(error) => error.into(),
            outbound::Error::Name { .. } => Self::NAME_UNRESOLVED,
            outbound::Error::Connect(_) => Self::CONNECT_FAILED,
            outbound::Error::ConnectTimeout => Self::CONNECT_TIMEOUT,
            outbound::Error::Dial(error) => (&**error).into(),
            outbound::Error::ClientGone => Self::CLIENT_GONE,
            outbound::Error::Tunnel(error) => error.into(),
            outbound::Error::Status { status, .. } => match *status {
                StatusCode::BAD_REQUEST => Self::PEER_REJECTED_TARGET,
                StatusCode::UNAUTHORIZED => Self::PEER_DENIED,
                StatusCode::SERVICE_UNAVAILABLE => Self::PEER_UNAVAILABLE,
                _ => Self::PEER_UNEXPECTED_STATUS,
            },
        }
    }
}

impl From<&dial::Error> for Outcome {
    fn from(error: &dial::Error) -> Self {
        match error {
            dial::Error::Identity(_) | dial::Error::IdentityTimeout => Self::IDENTITY_UNAVAILABLE,
            dial::Error::Connect(_) => Self::TUNNEL_CONNECT_FAILED,
            dial::Error::ConnectTimeout => Self::TUNNEL_CONNECT_TIMEOUT,
            dial::Error::Tls(_) => Self::TUNNEL_TLS_FAILED,
            dial::Error::TlsTimeout => Self::TUNNEL_TLS_TIMEOUT,
        }
    }
}

impl From<&hbone::Error> for Outcome {
    fn from(error: &hbone::Error) -> Self {
        match error {
            hbone::Error::Protocol(_) => Self::TUNNEL_HTTP2_FAILED,
            hbone::Error::Transport(_)
            | hbone::Error::PeerClosed
            | hbone::Error::GoingAway
            | hbone::Error::AtLimit
            | hbone::Error::Closed => Self::TUNNEL_LOST,
            hbone::Error::NoAnswer(_) => Self::TUNNEL_ANSWER_TIMEOUT,
            hbone::Error::Reset(_) => Self::TUNNEL_REFUSED,
        }
    }
}

impl From<&inbound::Error> for Outcome {
    fn from(error: &inbound::Error) -> Self {
        match error {
            inbound::Error::Accept(error) => error.into(),
            inbound::Error::Request(_) => Self::REQUEST_INVALID,
            inbound::Error::Target(error) => error.into(),
            inbound::Error::WorkloadUnknown(_) => Self::WORKLOAD_UNKNOWN,
            inbound::Error::PodGone(_) => Self::POD_GONE,
            inbound::Error::Denied(denial) => denial.into(),
            inbound::Error::Connect(_) => Self::APPLICATION_CONNECT_FAILED,
            inbound::Error::ConnectTimeout => Self::APPLICATION_CONNECT_TIMEOUT,
            inbound::Error::ClientGone => Self::CLIENT_GONE,
        }
    }
}

impl From<&inbound::AcceptError> for Outcome {
    fn from(error: &inbound::AcceptError) -> Self {
        match error {
            inbound::AcceptError::Identity(_) | inbound::AcceptError::IdentityTimeout => {
                Self::IDENTITY_UNAVAILABLE
            }
            inbound::AcceptError::Tls(_) => Self::CLIENT_TLS_FAILED,
            inbound::AcceptError::TlsTimeout => Self::CLIENT_TLS_TIMEOUT,
            inbound::AcceptError::Tunnel(_) => Self::CLIENT_HTTP2_FAILED,
        }
    }
}

impl From<&inbound::TargetError> for Outcome {
    fn from(error: &inbound::TargetError) -> Self {
        match error {
            inbound::TargetError::Authority(_) => Self::AUTHORITY_INVALID,
            inbound::TargetError::Foreign { .. } => Self::TARGET_FOREIGN,
            inbound::TargetError::ServiceUnknown(_) => Self::SERVICE_UNKNOWN,
            inbound::TargetError::PortUnresolved(_) => Self::PORT_UNRESOLVED,
            inbound::TargetError::PortReserved(_) => Self::PORT_RESERVED,
            inbound::TargetError::NoVip(_) => Self::SERVICE_ADDRESS_MISSING,
        }
    }
}

impl From<&Denial> for Outcome {
    fn from(denial: &Denial) -> Self {
        match denial {
            Denial::Policy(authz::Denial::Explicit(_) | authz::Denial::NotAllowed) => {
                Self::POLICY_DENIED
            }
            Denial::Policy(authz::Denial::Unknown(_)) => Self::POLICY_UNKNOWN,
            Denial::NotThroughWaypoint => Self::WAYPOINT_REQUIRED,
        }
    }
}

/// None where users would read an everyday end as a failure to connect (Istio ztunnel).
pub fn of_copy(error: &copy::Error) -> Option<Outcome> {
    match (&error.cut, error.side) {
        (Cut::Reset, _) => None,
        (Cut::Undelivered, _) => Some(Outcome::UNDELIVERED),
        (Cut::Io(_), _) => Some(Outcome::SOCKET_FAILED),
        (Cut::Tunnel(error), side) => of_stream(error, side),
    }
}

fn of_stream(error: &StreamError, side: Side) -> Option<Outcome> {
    match (error, side) {
        (StreamError::Reset(Reason::REFUSED_STREAM), _) => Some(Outcome::UNDELIVERED),
        (StreamError::BrokenPipe, _) => None,
        // The client's proxy went away with everything in it: to the application it hung up.
        (StreamError::Reset(_) | StreamError::Connection(_), Side::Near) => {
            Some(Outcome::CLIENT_GONE)
        }
        (StreamError::Reset(_) | StreamError::Connection(_), Side::Far) => {
            Some(Outcome::STREAM_LOST)
        }
    }
}
