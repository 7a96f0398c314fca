//! `loadBalancer`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use serde::{Serialize, Serializer};

use crate::mesh::traffic::Share;

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Balancer {
    /// The better of two random ones, by work and time.
    LeastRequest(Option<Warmup>),
    /// One after the other, in proportion to their weights.
    RoundRobin(Option<Warmup>),
    /// Any, in proportion to their weights.
    Random,
    /// The same for the same key, as long as it is there.
    Hash {
        /// What of a request is the key.
        key: HashKey,
        /// How keys are given to endpoints.
        table: HashTable,
    },
}

impl Default for Balancer {
    fn default() -> Self {
        Self::LeastRequest(None)
    }
}

/// How a new endpoint grows to its full share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Warmup {
    /// Until the full share.
    pub duration: Duration,
    /// The share that it starts with.
    pub least: Share,
    /// Thousandths of the exponent's inverse: 1,000 grows evenly, more grows fast at first.
    pub aggression: u32,
}

/// What of a request says where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HashKey {
    /// The value of a header.
    Header(#[serde(serialize_with = "name")] HeaderName),
    /// The value of a cookie.
    Cookie {
        /// Name.
        name: Arc<str>,
        /// Path of the cookie that is made; "" for none.
        path: Arc<str>,
        /// A request without the cookie gets one that lives so long; zero lives as long as the
        /// browser. `None` makes none.
        ttl: Option<Duration>,
    },
    /// The first value of a query parameter.
    Query(Arc<str>),
    /// The client's address.
    SourceIp,
}

fn name<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

/// How keys are given to endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HashTable {
    /// A ring with at least so many places.
    Ring(u32),
    /// A Maglev table with so many places.
    Maglev(u32),
}
