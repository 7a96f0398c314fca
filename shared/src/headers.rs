//! The headers of a tunnel request: who calls, on whose behalf, and the id both ends log.
//!
//! Invariants: everything parsed here was written by a peer and is telemetry only: no field of it
//! ever takes part in a policy decision or chooses an address.
//! Not here: framing (`hbone`), which only carries an [`http::HeaderMap`].
//! Source: Istio ztunnel `baggage`, `hbone`; spec L4 §2.4 and §2.6.

mod authority;
mod baggage;
mod cause;
mod forwarded;
mod traceparent;

pub use authority::{Authority, BadAuthority};
pub use baggage::{BAGGAGE, Baggage};
pub use cause::{CAUSE, cause, refusal};
pub use forwarded::{FORWARDED, FORWARDED_NETWORK, Forwarded};
pub use traceparent::{TRACEPARENT, TraceParent};
