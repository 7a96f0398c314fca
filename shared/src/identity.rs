//! SPIFFE ids, certificates, and where certificates come from.
//!
//! | item | is |
//! |---|---|
//! | [`SpiffeId`] | who somebody is |
//! | [`WorkloadCertificate`] | the proof of it, with its key and what it trusts |
//! | [`Authority`] | who gives certificates out |
//! | [`CertStore`] | the certificates of this node, renewed in time |

mod authority;
mod certificate;
mod id;
mod refresh;
mod schedule;
mod store;
#[cfg(any(test, feature = "test-util"))]
pub mod test_util;

pub use authority::{Authority, Error};
pub use certificate::{CertificateError, WorkloadCertificate};
pub use id::{ParseError, SpiffeId, TrustDomain};
pub use schedule::Config;
pub use store::{CertStore, Snapshot, State};
