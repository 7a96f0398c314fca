//! Capture: how a pod's traffic comes to this process without the pod knowing.
//!
//! | module | holds |
//! |---|---|
//! | [`netns`] | opening a pod's network namespace safely, and working inside it |
//! | [`sockets`] | every socket that the proxy opens on behalf of a pod |
//! | [`capture`] | which packets are redirected, and the way back |
//! | `nft`, `route`, `listening`, `netlink` | how the kernel is told |

pub mod capture;
mod listening;
mod netlink;
pub mod netns;
mod nft;
mod route;
pub mod sockets;

pub use capture::{Capture, Ports};
pub use netns::{Home, Namespace, NamespaceId};
pub use sockets::{KeepSource, Keepalive, Sockets};

/// The mark of every packet that the proxy sends: 1337 (Istio ztunnel `PACKET_MARK`).
///
/// Load bearing: traffic of the proxy without it is captured again and loops.
pub const PROXY_MARK: u32 = 0x539;
/// The mark of the application's answers to connections that carry a client's address.
pub const RETURN_MARK: u32 = 0x111;
/// The bits of a mark that capture reads and writes; the others are left to their owners.
pub const MARK_MASK: u32 = 0xfff;
