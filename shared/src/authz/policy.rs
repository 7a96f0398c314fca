//! The policy model: groups of rules of matches, as the workload API carries it (spec L4 §6).

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use crate::authz::InsideMatch;
use crate::mesh::ServiceKey;

/// One authorisation policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Namespace and name.
    pub key: PolicyKey,
    /// What it applies to.
    pub scope: Scope,
    /// What a waypoint enforces it for; empty in every other scope.
    pub targets: Box<[PolicyTarget]>,
    /// What a match means.
    pub action: Action,
    /// Evaluated and logged, never enforced.
    pub dry_run: bool,
    /// The policy matches if any group matches; no group never matches.
    pub groups: Vec<Group>,
}

/// Namespace and name of a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a policy applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Scope {
    /// Every workload of the mesh.
    Global,
    /// Every workload of the policy's namespace.
    Namespace,
    /// Only workloads that list the policy.
    WorkloadSelector,
    /// Only the traffic that its targets name, at a waypoint.
    Targets,
}

/// What a waypoint enforces a policy for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub enum PolicyTarget {
    /// Everything that passes any waypoint.
    Waypoints,
    /// Everything that passes the waypoint of this Gateway.
    Gateway(GatewayKey),
    /// What is asked of this service.
    Service(ServiceKey),
}

/// Namespace and name of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct GatewayKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// What a matching policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Action {
    /// Allows; once any enforced allow policy applies, what none allows is denied.
    Allow,
    /// Denies, whatever the allow policies say.
    Deny,
    /// Changes nothing; what matches is marked in the log.
    Audit,
}

/// Matches if all its rules match; without rules it matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// All must match.
    pub rules: Vec<Rule>,
}

/// Matches if any of its matches does; without matches it matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// Any must match.
    pub matches: Vec<Match>,
}

/// One conjunction over the facts of a connection. All lists empty: never matches.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// Namespace of the proved peer; "" without a peer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<StringMatch>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_namespaces: Vec<StringMatch>,
    /// Identity of the proved peer without `spiffe://`; never matches without a peer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<StringMatch>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_principals: Vec<StringMatch>,
    /// Service account of the proved peer, in any trust domain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<ServiceAccountMatch>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_service_accounts: Vec<ServiceAccountMatch>,
    /// TCP peer address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<IpNet>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_source_ips: Vec<IpNet>,
    /// Address of the application socket.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_ips: Vec<IpNet>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_destination_ips: Vec<IpNet>,
    /// Port of the application socket.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_ports: Vec<u16>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_destination_ports: Vec<u16>,
    /// What only a waypoint can see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside: Option<Box<InsideMatch>>,
}

/// How a string of a policy compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Starts with.
    Prefix(Arc<str>),
    /// Ends with.
    Suffix(Arc<str>),
    /// Not empty.
    Presence,
}

/// A service account of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountMatch {
    /// Namespace of the account.
    pub namespace: Arc<str>,
    /// Name of the account.
    pub service_account: Arc<str>,
}
