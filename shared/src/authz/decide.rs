//! The decision: may this peer open this connection, or send this request?
//!
//! Invariants: pure, and allocates nothing when it allows; deny wins; the order of policies does
//! not matter; a policy that is listed but unknown denies. (Istio ztunnel skips it, which leaves
//! the workload open while policies and workloads race: a deviation on the safe side.)
//! Source: spec L4 §6.2 to §6.4.

use crate::authz::{Action, Facts, Guarded, Policy, PolicyKey};
use crate::mesh::{Applied, Mesh};

/// Proof that policy allowed a connection or a request; only [`decide`] makes one. A copy is for what
/// the same decision covers.
#[derive(Debug, Clone)]
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

/// The policies that apply, and those that are listed and unknown.
fn applied<'a>(mesh: &'a Mesh, facts: &Facts<'a>) -> impl Iterator<Item = Applied<'a>> {
    let (workload, behind) = match facts.guarded {
        Guarded::Workload(workload) => (Some(workload), None),
        Guarded::Behind { gateway, service } => (None, Some((gateway, service))),
    };
    let of_workload = workload.map(|workload| mesh.policies_for(workload));
    let targeted = behind.map(|(gateway, service)| mesh.policies_behind(gateway, service));
    let targeted = targeted.into_iter().flatten().map(Applied::Policy);
    of_workload.into_iter().flatten().chain(targeted)
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
    for applied in applied(mesh, facts) {
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
            Action::Deny | Action::Audit => {}
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

/// The policies that mark what they match for the log.
pub fn audits<'a>(mesh: &'a Mesh, facts: &Facts<'a>) -> impl Iterator<Item = &'a PolicyKey> {
    applied(mesh, facts).filter_map(move |applied| match applied {
        Applied::Policy(policy) if policy.action == Action::Audit => {
            (!policy.dry_run && policy.matches(facts)).then_some(&policy.key)
        }
        _ => None,
    })
}

/// What the policies on trial (dry run) would have done. Call it only when it will be logged.
pub fn trials<'a>(mesh: &'a Mesh, facts: &Facts<'a>) -> Vec<Trial<'a>> {
    let known = |applied| match applied {
        Applied::Policy(policy) => Some(&**policy),
        Applied::Missing(_) => None,
    };
    let policies: Vec<&Policy> = applied(mesh, facts).filter_map(known).collect();
    let mut trials = Vec::new();
    let mut allow_exists = false;
    let mut allows = false;
    for policy in policies.iter().filter(|policy| policy.dry_run) {
        let matches = policy.matches(facts);
        match policy.action {
            Action::Deny if matches => trials.push(Trial::Denies(&policy.key)),
            Action::Deny | Action::Audit => {}
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
