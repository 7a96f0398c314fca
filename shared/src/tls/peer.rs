//! The proof that a peer holds an identity.

use std::fmt;

use rustls::CommonState;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;

use super::Error;
use super::verify::{verify_client, verify_server};
use crate::identity::{SpiffeId, WorkloadCertificate};

/// A peer's identity, proved by a completed mutual handshake, or by what one would have looked at.
///
/// There is no other way to make one than [`peer`] and [`meet`], so a value of this type in an argument means
/// that somebody has checked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PeerId(SpiffeId);

impl PeerId {
    /// The identity that was proved.
    pub fn id(&self) -> &SpiffeId {
        &self.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The identity of the peer of `connection`: the first workload identity among the URI names of
/// its certificate.
///
/// `connection` must come from a configuration of [`super::client_config`] or
/// [`super::server_config`]: only their verifiers make the certificate worth anything.
///
/// # Errors
/// [`Error::Handshaking`] before the handshake has finished; [`Error::NoIdentity`] when the peer
/// has presented no certificate or one without a workload identity.
pub fn peer(connection: &CommonState) -> Result<PeerId, Error> {
    if connection.is_handshaking() {
        return Err(Error::Handshaking);
    }
    let leaf = connection.peer_certificates().and_then(<[_]>::first).ok_or(Error::NoIdentity)?;
    first_identity(leaf).map(PeerId).ok_or(Error::NoIdentity)
}

/// The identity that `client` would prove to `server` in a handshake, as long as each of them accepts
/// the other's certificate, and `server` is one of `expected`. That both have their keys is known
/// without a handshake: a [`WorkloadCertificate`] holds its own.
///
/// # Errors
/// What the handshake would end with.
pub fn meet(
    client: &WorkloadCertificate,
    server: &WorkloadCertificate,
    expected: &[SpiffeId],
) -> Result<PeerId, Error> {
    let now = UnixTime::now();
    verify_server(client.roots(), expected, split(server)?, now)?;
    let peer = verify_client(server.roots(), server.trust_domain(), split(client)?, now)?;
    Ok(PeerId(peer))
}

/// The leaf that `certificate` presents, and its intermediates.
fn split(
    certificate: &WorkloadCertificate,
) -> Result<(&CertificateDer<'static>, &[CertificateDer<'static>]), Error> {
    let (leaf, intermediates) = certificate.chain().split_first().ok_or(Error::NoIdentity)?;
    Ok((leaf, intermediates))
}

fn first_identity(leaf: &CertificateDer<'_>) -> Option<SpiffeId> {
    let leaf = EndEntityCert::try_from(leaf).ok()?;
    identities(&leaf).next()
}

/// The workload identities among the URI names of a certificate, in its order.
pub(super) fn identities(leaf: &EndEntityCert<'_>) -> impl Iterator<Item = SpiffeId> {
    leaf.valid_uri_names().filter_map(|name| name.parse().ok())
}
