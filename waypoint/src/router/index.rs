//! Matches in order of precedence, found by path.
//!
//! Invariants: a bucket is in order of precedence, and every bucket comes wholly before the next
//! one that `find` looks at, because the path is what precedence looks at first.

use std::collections::HashMap;
use std::sync::Arc;

use shared::mesh::{HttpMatch, PathMatch};

use super::conditions::Asked;
use super::precedence::{Candidate, Class, MatchId, class};
use super::{Matched, Rule};

/// The matches of one audience of one port.
#[derive(Debug, Default)]
pub(super) struct Index {
    exact: HashMap<Arc<str>, Vec<MatchId>>,
    prefixes: HashMap<Arc<str>, Vec<MatchId>>,
    /// Lengths of the prefixes, the longest first, each once.
    lengths: Box<[usize]>,
    regexes: Box<[MatchId]>,
    any: Box<[MatchId]>,
    /// The first that asks for nothing; those after it are never reached.
    catch_all: Option<MatchId>,
}

impl Index {
    pub(super) fn new(mut candidates: Vec<Candidate<'_>>) -> Self {
        candidates.sort_unstable_by(Candidate::order);
        let mut index = Self::default();
        let (mut lengths, mut regexes, mut any) = (Vec::new(), Vec::new(), Vec::new());
        for Candidate { id, wanted, .. } in candidates {
            match (&wanted.path, class(wanted)) {
                (_, Class::CatchAll) => {
                    index.catch_all.get_or_insert(id);
                }
                (PathMatch::Exact(path), _) => {
                    index.exact.entry(path.clone()).or_default().push(id);
                }
                (PathMatch::Prefix(prefix), _) => {
                    lengths.push(prefix.len());
                    index.prefixes.entry(prefix.clone()).or_default().push(id);
                }
                (PathMatch::Regex(_), _) => regexes.push(id),
                (PathMatch::Any, _) => any.push(id),
            }
        }
        // Candidates came with the longest prefix first.
        lengths.dedup();
        index.exact.shrink_to_fit();
        index.prefixes.shrink_to_fit();
        Self { lengths: lengths.into(), regexes: regexes.into(), any: any.into(), ..index }
    }

    /// The first match of a request.
    pub(super) fn find<'t>(&self, rules: &'t [Rule], asked: &Asked<'_>) -> Option<Matched<'t>> {
        let path = asked.path();
        let wanted = |id: &MatchId| &rules[id.rule as usize].matches[id.at as usize];
        let meets = |id: &&MatchId| asked.meets(wanted(id));
        let exact = || self.exact.get(path)?.iter().find(meets);
        let prefix = || self.buckets(path).find_map(|bucket| bucket.iter().find(meets));
        let regex = || {
            self.regexes.iter().find(|id| match &wanted(id).path {
                PathMatch::Regex(pattern) => pattern.is_match(path.as_bytes()) && meets(id),
                _ => false,
            })
        };
        let found = exact()
            .or_else(prefix)
            .or_else(regex)
            .or_else(|| self.any.iter().find(meets))
            .or(self.catch_all.as_ref())?;
        Some(Matched { rule: &rules[found.rule as usize], prefix: prefix_of(wanted(found)) })
    }

    /// The buckets of the prefixes of `path`, the longest first. A prefix ends where a segment does.
    fn buckets(&self, path: &str) -> impl Iterator<Item = &Vec<MatchId>> {
        let is_end = |length: &&usize| matches!(path.as_bytes().get(**length), None | Some(b'/'));
        let ends = self.lengths.iter().filter(|length| **length <= path.len()).filter(is_end);
        // "" is the prefix of every path that begins with a slash: not of "*".
        let ends = ends.filter(|length| **length > 0 || path.starts_with('/'));
        ends.filter_map(|length| self.prefixes.get(path.get(..*length)?))
    }
}

fn prefix_of(wanted: &HttpMatch) -> Option<&str> {
    match &wanted.path {
        PathMatch::Prefix(prefix) => Some(prefix),
        _ => None,
    }
}
