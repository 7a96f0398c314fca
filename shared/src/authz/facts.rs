//! What is known about a connection or a request when it is decided.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::authz::GatewayKey;
use crate::identity::SpiffeId;
use crate::mesh::{ServiceKey, Workload};

/// What is known about a connection at its destination, or about a request at a waypoint.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Whose policies decide.
    pub guarded: Guarded<'a>,
    /// The identity that the peer proved; none for plaintext.
    pub peer: Option<&'a SpiffeId>,
    /// Address of the TCP peer.
    pub source_ip: IpAddr,
    /// Address and port of the application's socket; at a waypoint those that the client dialled.
    pub destination_addr: SocketAddr,
    /// What is carried.
    pub inside: Inside<'a>,
}

/// Whose policies decide.
#[derive(Debug, Clone, Copy)]
pub enum Guarded<'a> {
    /// Those of the workload that is to receive the connection.
    Workload(&'a Workload),
    /// Those that are attached to a waypoint, and to the service behind it that was asked for.
    Behind {
        /// The waypoint.
        gateway: &'a GatewayKey,
        /// The service; none when a workload was asked for by its own address.
        service: Option<&'a ServiceKey>,
    },
}

/// What is known of what a connection carries.
#[derive(Debug, Clone, Copy)]
pub enum Inside<'a> {
    /// Nothing: a node proxy does not look.
    Unseen,
    /// Bytes that are no HTTP we can read.
    Bytes {
        /// The name that TLS inside asks for.
        server_name: Option<&'a str>,
    },
    /// A request.
    Http(&'a HttpFacts<'a>),
}

/// A request, as policies see it: before anything of it was changed but its path made normal.
#[derive(Debug, Clone)]
pub struct HttpFacts<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) host: Cow<'a, str>,
    /// None when they are no longer known.
    pub(super) headers: Option<&'a HeaderMap>,
}

impl<'a> HttpFacts<'a> {
    /// `path` is in its normal form and without its query; `host` as the client wrote it. Headers may
    /// be left out where no policy asked for any when it was first decided.
    pub fn new(
        method: &'a str,
        path: &'a str,
        host: &'a str,
        headers: Option<&'a HeaderMap>,
    ) -> Self {
        Self { method, path, host: folded(host), headers }
    }
}

/// Names of hosts have no case, and the dot at their end says nothing (spec L7 §8.4).
fn folded(host: &str) -> Cow<'_, str> {
    let (name, port) = match host.rfind(':') {
        Some(at) if !host.ends_with(']') => host.split_at(at),
        _ => (host, ""),
    };
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.len() == name.len() && !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Borrowed(host);
    }
    Cow::Owned(format!("{}{port}", bare.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_folded_and_keep_their_port() {
        for (given, expected) in [
            ("shop.example", "shop.example"),
            ("Shop.Example", "shop.example"),
            ("shop.example.", "shop.example"),
            ("SHOP.example.:80", "shop.example:80"),
            ("[FD00::1]", "[fd00::1]"),
            ("[fd00::1]:80", "[fd00::1]:80"),
            ("", ""),
        ] {
            assert_eq!(folded(given), expected, "{given}");
        }
    }
}
