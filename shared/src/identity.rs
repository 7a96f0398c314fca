//! SPIFFE ids, certificates, and where certificates come from.

mod id;

pub use id::{ParseError, SpiffeId, TrustDomain};
