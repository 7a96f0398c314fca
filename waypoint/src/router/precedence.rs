//! Which of two matches comes first.
//!
//! ```text
//! exact path > longer prefix > longer expression > no path > nothing asked at all
//! > a method > more headers > more parameters
//! > older route > namespace/name > kind > earlier rule > earlier match
//! ```

use std::cmp::Ordering;

use shared::mesh::{HttpMatch, PathMatch, Route};

use super::Rule;

/// One match of one rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) id: MatchId,
    pub(super) wanted: &'a HttpMatch,
    pub(super) route: &'a Route,
}

/// A rule in the table and a match in the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MatchId {
    pub(super) rule: u32,
    pub(super) at: u32,
}

/// What is asked of a path, from what comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Nothing is asked of the path, nor of anything else.
    CatchAll,
    /// Nothing is asked of the path.
    Any,
    /// Istio: an expression is less than a prefix.
    Regex,
    Prefix,
    Exact,
}

impl<'a> Candidate<'a> {
    /// The matches of one rule, in order.
    pub(super) fn all_of(
        rule: usize,
        of: &'a Rule,
        route: &'a Route,
    ) -> impl Iterator<Item = Self> + 'a {
        // A table has some thousands of rules; four thousand million do not fit into memory.
        let rule = u32::try_from(rule).unwrap_or(u32::MAX);
        let at = (0..).zip(of.matches.iter());
        at.map(move |(at, wanted)| Self { id: MatchId { rule, at }, wanted, route })
    }

    /// The order of precedence. No two candidates of a table are equal.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        other
            .weight()
            .cmp(&self.weight())
            .then_with(|| self.route.created.cmp(&other.route.created))
            .then_with(|| full_name(self.route).cmp(full_name(other.route)))
            .then_with(|| self.route.key.kind.cmp(&other.route.key.kind))
            .then_with(|| self.id.cmp(&other.id))
    }

    fn weight(&self) -> (Class, usize, bool, usize, usize) {
        let HttpMatch { path, headers, query, method, further: _ } = self.wanted;
        let length = match path {
            PathMatch::Exact(text)
            | PathMatch::Prefix(text)
            | PathMatch::Start { text, .. }
            | PathMatch::ExactAnyCase(text) => text.len(),
            PathMatch::Regex(pattern) => pattern.as_str().len(),
            PathMatch::Any => 0,
        };
        (class(self.wanted), length, method.is_some(), headers.len(), query.len())
    }
}

/// Gateway API: "alphabetical order by {namespace}/{name}".
fn full_name(route: &Route) -> impl Iterator<Item = u8> {
    let name = route.key.name.bytes();
    route.key.namespace.bytes().chain([b'/']).chain(name)
}

pub(super) fn class(wanted: &HttpMatch) -> Class {
    let alone = wanted.headers.is_empty() && wanted.query.is_empty() && wanted.method.is_none();
    match &wanted.path {
        PathMatch::Any if alone => Class::CatchAll,
        PathMatch::Prefix(text) if alone && text.is_empty() => Class::CatchAll,
        PathMatch::Any => Class::Any,
        // The last two are of virtual services, which are not sorted.
        PathMatch::Regex(_) | PathMatch::Start { .. } | PathMatch::ExactAnyCase(_) => Class::Regex,
        PathMatch::Prefix(_) => Class::Prefix,
        PathMatch::Exact(_) => Class::Exact,
    }
}
