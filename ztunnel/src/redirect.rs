//! Capture: how a pod's traffic comes to this process without the pod knowing.
//!
//! | module | holds |
//! |---|---|
//! | [`netns`] | opening a pod's network namespace safely, and working inside it |
//! | [`sockets`] | every socket that the proxy opens on behalf of a pod |

pub mod netns;
pub mod sockets;

pub use netns::{Home, Namespace, NamespaceId};
pub use sockets::Sockets;

/// The mark of every packet that the proxy sends: 1337 (Istio ztunnel `PACKET_MARK`).
///
/// Load bearing: traffic of the proxy without it is captured again and loops.
pub const PROXY_MARK: u32 = 0x539;
