//! How long requests may take, when they are repeated, and how sessions stay together.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use serde::Serialize;

use super::dump;

/// Limits of time; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// Of the whole request, with all repetitions.
    pub request: Option<Duration>,
    /// Of one attempt. Not longer than `request`.
    pub backend_request: Option<Duration>,
}

impl Timeouts {
    /// Whether there is no limit.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// When a request is sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Statuses that are answered by another attempt, beside failed connections.
    pub codes: Box<[u16]>,
    /// So are all of 500 to 599.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub server_errors: bool,
    /// Statuses of gRPC, where there is no message before them.
    pub grpc: Box<[u8]>,
    /// Whether broken connections and attempts that take too long are, too.
    pub broken: bool,
    /// Attempts after the first; 0 for none.
    pub attempts: u32,
    /// The least wait before an attempt; `None` for the default.
    pub backoff: Option<Duration>,
    /// `culvert.dev/retry-delivered: "true"`: also requests that may have had an effect.
    pub delivered: bool,
}

impl Retry {
    /// gRPC's CANCELLED and UNAVAILABLE, which Istio repeats by default.
    pub const GRPC: [u8; 2] = [1, 14];

    /// Whether the route wants another attempt after this status.
    pub fn names(&self, status: u16) -> bool {
        self.server_errors && (500..600).contains(&status) || self.codes.contains(&status)
    }
}

/// How many requests to a service may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryConstraint {
    /// Per hundred requests that come first. 20.
    pub percent: u8,
    /// The time over which both are counted. 10 s; longer lets a quiet hour's be spent at once.
    pub interval: Duration,
    /// Within the interval, however few requests there are. 100, as 10 per second.
    pub minimum: u32,
}

impl Default for RetryConstraint {
    /// Gateway API's.
    fn default() -> Self {
        Self { percent: 20, interval: Duration::from_secs(10), minimum: 100 }
    }
}

/// How the requests of one session find the same endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// What carries the session.
    pub kind: SessionKind,
    /// The longest life of a session.
    pub absolute_timeout: Option<Duration>,
    /// The longest pause of a session.
    pub idle_timeout: Option<Duration>,
}

/// What carries a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SessionKind {
    /// A cookie.
    Cookie {
        /// Name; no other rule of the mesh has it unless it is written there.
        name: Arc<str>,
        /// Whether the browser keeps it when it ends; `absolute_timeout` is there then.
        permanent: bool,
    },
    /// A header, which clients send back.
    Header(#[serde(serialize_with = "dump::text")] HeaderName),
}
