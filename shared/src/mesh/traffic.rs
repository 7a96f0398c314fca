//! What a `DestinationRule` says about the requests to a service: how they are spread, how many
//! there may be at a time, and when an endpoint is left out.
//!
//! Invariants: merged and complete: what was left out has its default. Values are within the bounds
//! that the feed checks. A zero that means "not set" in Istio is none here.
//! Source: Istio's DestinationRule, spec L7 §3.2 and §3.3.

mod balancer;
mod locality;
mod outliers;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use balancer::{Balancer, HashKey, HashTable, Warmup};
pub use locality::{Distribution, LocalityPattern, LocalityPreference};
pub use outliers::{OutlierDetection, SlowAnswers, SuccessRate};

/// The policies of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicies {
    /// Namespaces and names of the rules that they come from.
    pub rules: Box<[Arc<str>]>,
    /// For the whole service and all ports that have none of their own.
    #[serde(flatten)]
    pub scope: PolicyScope,
    /// For some of the endpoints.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub subsets: Box<[Subset]>,
}

/// The policies of all ports.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyScope {
    /// Of ports that are not in `ports`.
    pub policy: Arc<TrafficPolicy>,
    /// Of these ports, in the order of their numbers.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub ports: Box<[(u16, Arc<TrafficPolicy>)]>,
}

impl PolicyScope {
    /// The policy of a port.
    pub fn of_port(&self, port: u16) -> &Arc<TrafficPolicy> {
        let found = self.ports.binary_search_by_key(&port, |(own, _)| *own);
        found.map_or(&self.policy, |at| &self.ports[at].1)
    }
}

impl TrafficPolicies {
    /// The subset of a name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|one| *one.name == *name)
    }
}

/// A part of the endpoints, by their labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Subset {
    /// Name.
    pub name: Arc<str>,
    /// Labels that its endpoints have, in the order of their keys.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Its policies, merged over those of the service.
    #[serde(flatten)]
    pub scope: PolicyScope,
}

/// What holds for the requests to one port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// How an endpoint is chosen.
    pub balancer: Balancer,
    /// Which endpoints are preferred for where they are; `None` leaves it to the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<LocalityPreference>,
    /// How many connections and requests there may be, and how long connections live.
    pub limits: Limits,
    /// When endpoints are left out; `None` is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outliers: Option<OutlierDetection>,
    /// Between what the number of requests at a time follows the time that answers take; `None` is
    /// not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Why nothing may be sent: the rule asks for protection that cannot be given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Arc<str>>,
}

/// Limits of one destination; `None` is no limit, or the waypoint's own default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Connections to all its endpoints together.
    pub connections: Option<u32>,
    /// Requests that wait for a connection.
    pub pending: Option<u32>,
    /// Requests that are not answered to their end, of any version.
    pub requests: Option<u32>,
    /// Repeated requests that are not answered to their end.
    pub retries: Option<u32>,
    /// Repeated requests as a share of all that are not answered; comes before `retries`.
    pub retry_budget: Option<RetryBudget>,
    /// Requests over the life of one connection.
    pub requests_per_connection: Option<u32>,
    /// Requests at a time on one connection of HTTP/2.
    pub streams: Option<u32>,
    /// How long a connection may take to be made, with its tunnel.
    pub connect_timeout: Option<Duration>,
    /// How long a connection may rest. Zero is for ever.
    pub idle_timeout: Option<Duration>,
    /// How old a connection may be when a request is sent on it, and how long one may last that is
    /// not HTTP.
    pub max_age: Option<Duration>,
    /// How long a connection that is not HTTP may rest.
    pub stream_idle: Option<Duration>,
    /// What endpoints are spoken to in, where the port leaves it open.
    pub upgrade: Upgrade,
}

/// `trafficPolicy.retryBudget`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    /// Of the requests that are not answered.
    pub share: Share,
    /// Always allowed.
    pub least: u32,
}

/// `h2UpgradePolicy` and `useClientProtocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum Upgrade {
    /// As the port says.
    #[default]
    Default,
    /// HTTP/2, whatever the port says.
    Http2,
    /// What the client speaks, whatever the port says.
    Client,
}

/// Bounds of a limit that finds itself: `culvert.dev/adaptive-concurrency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Concurrency {
    /// At least so many requests at a time. 1 to `most`.
    pub least: u32,
    /// At most so many. Up to 1,000,000.
    pub most: u32,
}

/// A share, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Share(u32);

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self(1_000_000);

    /// None of it.
    pub const NOTHING: Self = Self(0);

    /// From percent; none when it is no number from 0 to 100.
    pub fn percent(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then(|| Self((percent * 10_000.0).round() as u32))
    }

    /// Whether something that drew this number is of it. Of every million draws in a row exactly the
    /// share is.
    pub fn takes(self, draw: u64) -> bool {
        draw % 1_000_000 < u64::from(self.0)
    }

    /// How many of a million.
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// From 0 to 1.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 1_000_000.0
    }
}
