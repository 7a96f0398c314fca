//! SPIFFE ids, certificates, and where certificates come from.
//!
//! | module | holds |
//! |---|---|
//! | [`SpiffeId`] | who somebody is |
//! | [`WorkloadCertificate`] | the proof of it, with its key and what it trusts |

mod certificate;
mod id;
#[cfg(any(test, feature = "test-util"))]
pub mod test_util;

pub use certificate::{CertificateError, WorkloadCertificate};
pub use id::{ParseError, SpiffeId, TrustDomain};
