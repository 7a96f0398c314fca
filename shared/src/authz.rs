//! Who may connect: pure decisions over an immutable snapshot.
//!
//! Invariants: a [`Permit`] exists only because `decide` allowed the connection or request; deny
//! wins; the order of policies does not matter; what a rule asks about and nobody can see never
//! allows, and never keeps a denial from applying.
//! Not here: watching a permit until the end of its connection (the proxies do that).
//! Source: Istio ztunnel `rbac`, spec L4 §6; at a waypoint spec L7 §4.

mod decide;
mod facts;
mod inside;
mod matching;
mod policy;
mod template;

pub use decide::{Denial, Permit, Trial, audits, decide, trials};
pub use facts::{Facts, Guarded, HttpFacts, Inside};
pub use inside::{HeaderRule, InsideMatch, PathRule};
pub use policy::{
    Action, GatewayKey, Group, Match, Policy, PolicyKey, PolicyTarget, Rule, Scope,
    ServiceAccountMatch, StringMatch,
};
pub use template::{Template, TemplateError};

#[cfg(test)]
mod tests;
