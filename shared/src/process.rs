//! The life of a process, as far as both programs live alike: what can fail at the start, the
//! administrative servers, the log, the signals.
//!
//! Not here: what they serve, and the order in which it starts and ends (their own `app`).

pub mod dump;
mod failure;
mod host;
mod log;
mod pages;
mod servers;
mod signals;

use std::pin::Pin;
use std::sync::Arc;

use crate::config::{Authority, Identity};
use crate::identity::{self, CaClient, Files, Token};

pub use self::failure::{Failure, state_advice};
pub use self::host::raise_descriptor_limit;
pub use self::log::Log;
pub use self::pages::give_back_regularly;
pub use self::servers::{Addresses, Servers, Told, socket_path};
pub use self::signals::{asked_to_end, drain_after, tell_readiness};

/// Work that lasts as long as the process.
pub type Background = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Opens the place where certificates come from.
///
/// # Errors
/// [`Failure::Certificates`] and [`Failure::Join`].
pub fn authority(identity: &Identity) -> Result<Arc<dyn identity::Authority>, Failure> {
    match &identity.authority {
        Authority::Files { certs } => Files::open(certs)
            .map(|files| Arc::new(files) as _)
            .map_err(|source| Failure::Certificates { path: certs.clone(), source }),
        Authority::Ca { address, join_token } => {
            CaClient::new(address, Token::File(join_token.clone()), identity.trust_domain.clone())
                .map(|client| Arc::new(client) as _)
                .map_err(Failure::Join)
        }
    }
}
