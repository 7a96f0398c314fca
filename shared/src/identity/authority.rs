//! Where certificates come from: the seam, and what can go wrong there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{CertificateError, SpiffeId, WorkloadCertificate};

/// A source of certificates. One call is one attempt: repeating, waiting and remembering are the
/// store's.
pub trait Authority: Send + Sync + 'static {
    /// Gets a certificate for `id`.
    ///
    /// # Cancel safety
    /// The store drops the future when nobody wants `id` any more.
    fn issue<'a>(&'a self, id: &'a SpiffeId) -> BoxFuture<'a, Result<WorkloadCertificate, Error>>;

    /// Moves when all certificates should be asked for again, as when files have changed. An
    /// authority that only answers questions has none.
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

/// Why there is no certificate. Cheap to clone, because all who wait get the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The authority has answered, and the answer is no.
    #[error("authority refused a certificate for {id}: {}", status.message())]
    Refused {
        /// Who was asked for.
        id: SpiffeId,
        /// The answer.
        status: Arc<tonic::Status>,
    },
    /// The authority cannot be reached or has failed.
    #[error("ask the certificate authority: {}", .0.message())]
    Unreachable(Arc<tonic::Status>),
    /// The authority has not answered in time.
    #[error("no answer from the authority within {0:?}")]
    Timeout(Duration),
    /// What came back is no usable certificate.
    #[error("use the certificate for {id}")]
    Certificate {
        /// Who was asked for.
        id: SpiffeId,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// What came back belongs to somebody else.
    #[error("authority answered with a certificate for {found} instead of {id}")]
    Mismatch {
        /// Who was asked for.
        id: SpiffeId,
        /// Whose certificate came.
        found: SpiffeId,
    },
    /// A file cannot be used.
    #[error("read {}", path.display())]
    File {
        /// The file, beneath the directory of certificates.
        path: PathBuf,
        /// Why not.
        source: Arc<std::io::Error>,
    },
    /// What came back has expired already.
    #[error("certificate for {0} has expired")]
    Expired(SpiffeId),
    /// The identity was forgotten while somebody waited, or the store has ended.
    #[error("certificate is not kept any more")]
    Closed,
}
