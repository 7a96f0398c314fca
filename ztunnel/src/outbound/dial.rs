//! A tunnel connection to a peer: our certificate, TCP, mutual TLS.

use std::io;
use std::sync::Arc;

use shared::chain::Chain;
use shared::identity;
use shared::tls::{self, PeerId};
use tokio::time::timeout;

use crate::node::{Node, pools::Key};
use crate::pods::Pod;

/// Why there is no tunnel connection. All who waited for it get the same.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// We have no certificate.
    #[error("identity error: {}", Chain(.0))]
    Identity(#[source] identity::Error),
    /// We have no certificate yet.
    #[error("identity error: no certificate yet")]
    IdentityTimeout,
    /// TCP.
    #[error("connection failed: {0}")]
    Connect(#[source] io::Error),
    /// Nobody answered.
    #[error("connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: no answer")]
    ConnectTimeout,
    /// TLS, or not one of the identities that we expect.
    #[error("tls error: {}", Chain(.0))]
    Tls(#[source] tls::Error),
    /// The peer accepted TCP, and then nothing.
    #[error("tls error: handshake timed out")]
    TlsTimeout,
}

/// Connects as `pod` to the peer that `key` names.
pub(crate) async fn dial(
    node: Arc<Node>,
    pod: Arc<Pod>,
    key: Key,
) -> Result<(tls::Stream, PeerId), Error> {
    let config = &node.config;
    let certificate = timeout(config.start_patience, node.certificates.certificate(&key.source))
        .await
        .map_err(|_| Error::IdentityTimeout)?
        .map_err(Error::Identity)?;
    let socket = timeout(config.connect_timeout, pod.sockets.connect(key.address, None))
        .await
        .map_err(|_| Error::ConnectTimeout)?
        .map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => Error::ConnectTimeout,
            _ => Error::Connect(error),
        })?;
    let handshake = tls::connect(socket, certificate.client_config(&key.expected));
    timeout(config.handshake_timeout, handshake)
        .await
        .map_err(|_| Error::TlsTimeout)?
        .map_err(Error::Tls)
}
