//! The decision: may this peer open this connection?
//!
//! Invariants: pure, and allocates nothing when it allows; deny wins; the order of policies does
//! not matter; a policy that is listed but unknown denies. (Istio ztunnel skips it, which leaves
//! the workload open while policies and workloads race: a deviation on the safe side.)
//! Source: spec L4 §6.2 to §6.4.

use std::net::{IpAddr, SocketAddr};

use crate::authz::{Action, Policy, PolicyKey};
use crate::identity::SpiffeId;
use crate::mesh::{Applied, Mesh, Workload};

/// What is known about a connection at its destination.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The workload that is to receive it.
    pub destination: &'a Workload,
    /// The identity that the peer proved; none for plaintext.
    pub peer: Option<&'a SpiffeId>,
    /// Address of the TCP peer.
    pub source_ip: IpAddr,
    /// Address and port of the application's socket.
    pub destination_addr: SocketAddr,
}

/// Proof that policy allowed a connection; only [`decide`] makes one.
#[derive(Debug)]
#[must_use = "a connection is opened with its permit"]
pub struct Permit(());

/// Why policy does not allow a connection. The texts are Istio ztunnel's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// A deny policy matched.
    #[error("explicitly denied by: {0}")]
    Explicit(PolicyKey),
    /// There are allow policies and none matched.
    #[error("allow policies exist, but none allowed")]
    NotAllowed,
    /// The workload lists a policy that the mesh does not have.
    #[error("policy {0} is referenced but not known")]
    Unknown(PolicyKey),
}

/// What a policy on trial would have done; for the log only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial<'a> {
    /// It would have denied the connection.
    Denies(&'a PolicyKey),
    /// It matched as an allow policy.
    Allows(&'a PolicyKey),
    /// There are only allow policies on trial, and none matched: enforcing them would deny.
    NoneAllows,
}

/// Decides by the policies of `mesh` whether a connection may be opened.
///
/// # Errors
/// The [`Denial`] that explains it best: an explicit one, then an unknown policy, then the lack of
/// an allowing policy.
pub fn decide(mesh: &Mesh, facts: &Facts<'_>) -> Result<Permit, Denial> {
    let mut unknown = None;
    let mut allow_exists = false;
    let mut allowed = false;
    for applied in mesh.policies_for(facts.destination) {
        let policy = match applied {
            Applied::Policy(policy) if policy.dry_run => continue,
            Applied::Policy(policy) => policy,
            Applied::Missing(key) => {
                unknown = unknown.or(Some(key));
                continue;
            }
        };
        match policy.action {
            Action::Deny if policy.matches(facts) => {
                return Err(Denial::Explicit(policy.key.clone()));
            }
            Action::Deny => {}
            Action::Allow => {
                allow_exists = true;
                allowed = allowed || policy.matches(facts);
            }
        }
    }
    match unknown {
        Some(key) => Err(Denial::Unknown(key.clone())),
        None if allow_exists && !allowed => Err(Denial::NotAllowed),
        None => Ok(Permit(())),
    }
}

/// What the policies on trial (dry run) would have done. Call it only when it will be logged.
pub fn trials<'a>(mesh: &'a Mesh, facts: &Facts<'a>) -> Vec<Trial<'a>> {
    let known = |applied| match applied {
        Applied::Policy(policy) => Some(&**policy),
        Applied::Missing(_) => None,
    };
    let policies: Vec<&Policy> = mesh.policies_for(facts.destination).filter_map(known).collect();
    let mut trials = Vec::new();
    let mut allow_exists = false;
    let mut allows = false;
    for policy in policies.iter().filter(|policy| policy.dry_run) {
        let matches = policy.matches(facts);
        match policy.action {
            Action::Deny if matches => trials.push(Trial::Denies(&policy.key)),
            Action::Deny => {}
            Action::Allow => {
                allow_exists = true;
                allows |= matches;
                if matches {
                    trials.push(Trial::Allows(&policy.key));
                }
            }
        }
    }
    let enforced = |policy: &&&Policy| !policy.dry_run && policy.action == Action::Allow;
    if allow_exists && !allows && policies.iter().find(enforced).is_none() {
        trials.push(Trial::NoneAllows);
    }
    trials
}
