//! HBONE: many TCP connections as CONNECT streams inside one mutual TLS connection.
//!
//! ```text
//! Client / Server / Stream / Pool   worker-local handles (`Rc`, never `Send`)
//!        │ share one Connection; ready streams put bytes into its output
//! driver │ one future per connection: reads, dispatches, writes the output once per turn
//!        ▼
//! engine    sans-I/O state machine          Transport   TLS stream, or a pipe in tests
//! ```
//!
//! Not here: who may connect (`authz`), where to (`ztunnel::outbound`), certificates (`tls`).

mod budget;
mod client;
mod connection;
mod driver;
pub mod engine;
mod error;
mod hpack;
mod output;
mod pool;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderMap;

pub use budget::Budget;
pub use client::{Client, client};
pub use driver::Driver;
pub use engine::{ConnectionError, Reason};
pub use error::{Error, StreamError};
pub use pool::{OpenError, Opened, Pool};
pub use server::{Drainer, Incoming, Server};
pub use stream::Stream;
pub use transport::{Plain, Transport};

/// What a tunnel is asked for: CONNECT `authority`.
#[derive(Debug, Clone)]
pub struct Request {
    /// Destination as `host:port`, exactly as on the wire.
    pub authority: Box<str>,
    /// Everything else: baggage, forwarded, traceparent and what others may add.
    pub headers: HeaderMap,
}

/// Why what a client asks for is no [`Request`]. It is owed an answer all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Another method, or no authority.
    #[error("not a CONNECT request with an authority")]
    NotConnect,
    /// More headers than we read.
    #[error("headers are larger than {} KiB", limit_bytes >> 10)]
    TooLarge {
        /// [`Config::max_header_list_bytes`].
        limit_bytes: u32,
    },
}

impl BadRequest {
    /// What the client is answered.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotConnect => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }
}

/// The answer to a [`Request`]. Only status 200 is a tunnel.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: StatusCode,
    /// Response headers.
    pub headers: HeaderMap,
}

/// Limits of one connection. The defaults are those of Istio's ztunnel.
#[derive(Debug, Clone)]
pub struct Config {
    /// How much a peer may send on one stream before we read it, at most. Default 4 MiB. A stream
    /// begins with 256 KiB of it, and gets more while its reader keeps up and that holds the peer
    /// back.
    pub stream_window_bytes: u32,
    /// The same for all streams together. Default 16 MiB: with both equal one unread stream
    /// would block all others. Values below 64 KiB count as 64 KiB.
    pub connection_window_bytes: u32,
    /// Largest frame a peer may send. Default 1 MiB, at least 16 KiB, below 16 MiB.
    pub max_frame_bytes: u32,
    /// Largest header list a peer may send. Default 16 KiB (client), 64 KiB (server).
    pub max_header_list_bytes: u32,
    /// Streams at a time. Server: what we advertise (200). Client: our own limit (100), which a
    /// peer can lower.
    pub max_streams: u32,
    /// Rest between keepalive pings. Default 10 s.
    pub ping_interval: Duration,
    /// How long an answer to a ping may take. Default 20 s.
    pub ping_timeout: Duration,
    /// How long the peer's first SETTINGS may take. Default 10 s.
    pub preface_timeout: Duration,
    /// How long the answer to a request may take. Default 30 s: a ztunnel that is asked needs at
    /// most 5 s for a new workload and 10 s for its application, a waypoint as much again. Shorter
    /// gives up on slow applications; without it a peer that lives but forgot would be waited for
    /// for ever.
    pub answer_timeout: Duration,
    /// Bytes that wait to be written before senders must wait, too. Default 256 KiB.
    pub output_limit_bytes: usize,
    /// Bounds what the windows of several connections grow by. Default none: each to its own limit.
    pub budget: Option<Arc<Budget>>,
}

/// What a stream's window begins with.
const FIRST_WINDOW_BYTES: u32 = 256 << 10;

impl Config {
    fn first_window_bytes(&self) -> u32 {
        self.stream_window_bytes.min(FIRST_WINDOW_BYTES)
    }

    /// Defaults of the opening side.
    pub fn client() -> Self {
        Self {
            stream_window_bytes: 4 << 20,
            connection_window_bytes: 16 << 20,
            max_frame_bytes: 1 << 20,
            max_header_list_bytes: 16 << 10,
            max_streams: 100,
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(20),
            preface_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            output_limit_bytes: 256 << 10,
            budget: None,
        }
    }

    /// Defaults of the answering side.
    pub fn server() -> Self {
        Self { max_header_list_bytes: 64 << 10, max_streams: 200, ..Self::client() }
    }
}
