//! What can go wrong with a tunnel, for a connection and for one stream.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::engine::{ConnectionError, Reason};

/// Why a connection ended, or a stream could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The protocol failed: a violation or a timeout.
    #[error(transparent)]
    Protocol(#[from] ConnectionError),
    /// Reading or writing below failed.
    #[error("tunnel transport failed")]
    Transport(#[source] Arc<io::Error>),
    /// The peer closed the connection while streams were open.
    #[error("peer closed the tunnel connection")]
    PeerClosed,
    /// The connection accepts no new streams; use another one.
    #[error("tunnel connection is going away")]
    GoingAway,
    /// As many streams as the peer allows are open; use another connection.
    #[error("tunnel connection is at its stream limit")]
    AtLimit,
    /// The peer lives, and has not answered in time.
    #[error("peer did not answer within {0:?}")]
    NoAnswer(Duration),
    /// The stream was reset before an answer came.
    #[error("peer reset the stream ({0})")]
    Reset(Reason),
    /// This side gave the connection up.
    #[error("tunnel connection was closed here")]
    Closed,
}

/// Why bytes can no longer be received or sent on a stream.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StreamError {
    /// The peer reset the stream. `REFUSED_STREAM`: none of its bytes reached the application.
    #[error("peer reset the stream ({0})")]
    Reset(Reason),
    /// The peer reads no more, or our direction is closed already.
    #[error("stream is closed for sending")]
    BrokenPipe,
    /// The whole connection ended.
    #[error("tunnel connection ended")]
    Connection(#[source] Error),
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Reset(_) | StreamError::Connection(_) => io::ErrorKind::ConnectionReset,
            StreamError::BrokenPipe => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}
