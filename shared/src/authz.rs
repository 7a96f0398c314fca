//! Who may connect: pure decisions over an immutable snapshot.
//!
//! Invariants: a [`Permit`] exists only because `decide` allowed the connection; deny wins; the
//! order of policies does not matter.
//! Not here: watching a permit until the end of its connection (the proxies do that).
//! Source: Istio ztunnel `rbac`, spec L4 §6.

mod decide;
mod matching;
mod policy;

pub use decide::{Denial, Facts, Permit, Trial, decide, trials};
pub use policy::{
    Action, Group, Match, Policy, PolicyKey, Rule, Scope, ServiceAccountMatch, StringMatch,
};

#[cfg(test)]
mod tests;
