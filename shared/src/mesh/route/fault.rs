//! Failures that are made on purpose.
//!
//! Source: Istio's HTTPFaultInjection, spec L7 §3.8.

use std::time::Duration;

use http::StatusCode;
use serde::Serialize;

use super::dump;
use crate::mesh::Share;

/// What is done to a share of the requests of a rule; whether they wait and whether they fail are
/// drawn apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// They wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// They are answered with a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
}

/// A wait before anything else is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Delay {
    /// How long.
    pub time: Duration,
    /// Of which requests.
    pub share: Share,
}

/// An answer that stands in for the backend's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Abort {
    /// Its status.
    pub status: AbortStatus,
    /// Of which requests.
    pub share: Share,
}

/// The status of a failure that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AbortStatus {
    /// 200 to 599; gRPC callers get the status that it stands for.
    Http(#[serde(serialize_with = "dump::text")] StatusCode),
    /// A status of gRPC, whoever asks.
    Grpc(u8),
}
