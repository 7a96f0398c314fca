//! TLS that applications speak themselves, inside the tunnel or without one.
//!
//! Invariant: a configuration is made once per policy and worker, not per connection.
//! Source: Gateway API BackendTLSPolicy; spec L7 §2.9.

use std::cell::RefCell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use shared::tls::{BackendError, BackendTerms, backend_config};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::node::Config;
use crate::upstream::io::Link;
use crate::upstream::{Error, Version};

/// TLS with an application. Equal to itself alone: connections are kept apart by it.
#[derive(Clone)]
pub(crate) struct Secured(Arc<Made>);

struct Made {
    terms: Arc<BackendTerms>,
    name: ServerName<'static>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    bytes: Arc<ClientConfig>,
}

/// What is spoken over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http(Version),
    Bytes,
}

/// Those of a worker.
#[derive(Default)]
pub(super) struct Known(RefCell<Vec<Secured>>);

impl Known {
    /// The TLS by `terms`.
    ///
    /// # Errors
    /// Nobody could be accepted by them.
    pub(super) fn by(&self, terms: &Arc<BackendTerms>) -> Result<Secured, BackendError> {
        let mut known = self.0.borrow_mut();
        if let Some(one) = known.iter().find(|one| Arc::ptr_eq(&one.0.terms, terms)) {
            return Ok(one.clone());
        }
        let made = Secured::new(Arc::clone(terms))?;
        known.push(made.clone());
        Ok(made)
    }

    /// Forgets what nobody uses.
    pub(super) fn sweep(&self) {
        self.0.borrow_mut().retain(|one| Arc::strong_count(&one.0) > 1);
    }
}

impl Secured {
    fn new(terms: Arc<BackendTerms>) -> Result<Self, BackendError> {
        let config = |alpn: &[&[u8]]| backend_config(&terms, alpn);
        let (http1, name) = config(&[b"http/1.1"])?;
        let (http2, _) = config(&[b"h2"])?;
        let (bytes, _) = config(&[])?;
        let (http1, http2, bytes) = (Arc::new(http1), Arc::new(http2), Arc::new(bytes));
        Ok(Self(Arc::new(Made { name, http1, http2, bytes, terms })))
    }

    /// Speaks TLS over `link`.
    ///
    /// # Errors
    /// The application is not who it must be, or does not speak TLS 1.3.
    pub(super) async fn connect(
        &self,
        link: Link,
        speaks: Speaks,
        config: &Config,
    ) -> Result<Link, Error> {
        let made = &*self.0;
        let chosen = match speaks {
            Speaks::Http(Version::Http1) => &made.http1,
            Speaks::Http(Version::Http2) => &made.http2,
            Speaks::Bytes => &made.bytes,
        };
        let handshake = TlsConnector::from(Arc::clone(chosen)).connect(made.name.clone(), link);
        let stream = timeout(config.handshake_timeout, handshake)
            .await
            .map_err(|_| Error::BackendTlsTimeout)?
            .map_err(Error::BackendTls)?;
        Ok(Link::Secured(Box::new(stream)))
    }
}

impl PartialEq for Secured {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Secured {}

impl Hash for Secured {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secured").field(&self.0.terms.policy).finish()
    }
}
