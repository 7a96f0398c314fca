//! SPIFFE ids, certificates, and where certificates come from.
//!
//! | item | is |
//! |---|---|
//! | [`SpiffeId`] | who somebody is |
//! | [`WorkloadCertificate`] | the proof of it, with its key and what it trusts |
//! | [`Authority`] | who gives certificates out |
//! | [`Files`], [`CaClient`] | two of them: a directory, and a certificate service |
//! | [`join::JoinToken`] | what a node needs to ask our own authority |
//! | [`CertStore`] | the certificates of this node, renewed in time |

mod authority;
mod ca_client;
mod certificate;
mod files;
mod id;
pub mod join;
mod refresh;
mod schedule;
mod store;
#[cfg(any(test, feature = "test-util"))]
pub mod test_util;

pub use authority::{Authority, Error};
pub use ca_client::{CaClient, IMPERSONATED_IDENTITY, Token};
pub use certificate::{CertificateError, WorkloadCertificate};
pub use files::Files;
pub(crate) use id::is_dns1123_subdomain;
pub use id::{ParseError, SpiffeId, TrustDomain};
pub use schedule::Config;
pub use store::{CertStore, Snapshot, State};
