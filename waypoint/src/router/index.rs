//! Matches in order of precedence, found by path.
//!
//! Invariants: a bucket is in order of precedence, and every bucket comes wholly before the next
//! one that `find` looks at, because the path is what precedence looks at first.

use std::collections::HashMap;
use std::sync::Arc;

use shared::mesh::PathMatch;

use super::bucket::Bucket;
use super::conditions::Asked;
use super::precedence::{Candidate, Class, MatchId, class};
use super::{Matched, Rule};

/// The matches of one audience of one port.
#[derive(Debug, Default)]
pub(super) struct Index {
    exact: HashMap<Arc<str>, Bucket>,
    prefixes: HashMap<Arc<str>, Bucket>,
    /// Lengths of the prefixes, the longest first, each once.
    lengths: Box<[usize]>,
    regexes: Box<[MatchId]>,
    any: Bucket,
    /// The first that asks for nothing; those after it are never reached.
    catch_all: Option<MatchId>,
}

type ByPath<'a> = HashMap<Arc<str>, Vec<Candidate<'a>>>;

impl Index {
    pub(super) fn new(mut candidates: Vec<Candidate<'_>>) -> Self {
        candidates.sort_unstable_by(Candidate::order);
        let (mut exact, mut prefixes) = (ByPath::new(), ByPath::new());
        let (mut lengths, mut regexes, mut any) = (Vec::new(), Vec::new(), Vec::new());
        let mut catch_all = None;
        for candidate @ Candidate { id, wanted, .. } in candidates {
            match (&wanted.path, class(wanted)) {
                (_, Class::CatchAll) => {
                    catch_all.get_or_insert(id);
                }
                (PathMatch::Exact(path), _) => {
                    exact.entry(path.clone()).or_default().push(candidate);
                }
                (PathMatch::Prefix(prefix), _) => {
                    lengths.push(prefix.len());
                    prefixes.entry(prefix.clone()).or_default().push(candidate);
                }
                (PathMatch::Any, _) => any.push(candidate),
                (PathMatch::Regex(_) | PathMatch::Start { .. } | PathMatch::ExactAnyCase(_), _) => {
                    regexes.push(id)
                }
            }
        }
        // Candidates came with the longest prefix first.
        lengths.dedup();
        let buckets = |all: ByPath<'_>| {
            all.into_iter().map(|(path, bucket)| (path, Bucket::new(&bucket))).collect()
        };
        Self {
            exact: buckets(exact),
            prefixes: buckets(prefixes),
            lengths: lengths.into(),
            regexes: regexes.into(),
            any: Bucket::new(&any),
            catch_all,
        }
    }

    /// The first match of a request.
    pub(super) fn find<'t>(
        &self,
        rules: &'t [Arc<Rule>],
        asked: &Asked<'_>,
    ) -> Option<Matched<'t>> {
        let path = asked.path();
        let wanted = |id: &MatchId| &rules[id.rule as usize].matches[id.at as usize];
        let meets = |id: &MatchId| asked.meets(wanted(id));
        let first = |bucket: &Bucket| bucket.find(asked, meets);
        let exact = || first(self.exact.get(path)?);
        let prefix = || self.buckets(path).find_map(first);
        let regex =
            || self.regexes.iter().copied().find(|id| wanted(id).path.is_match(path) && meets(id));
        let found = exact()
            .or_else(prefix)
            .or_else(regex)
            .or_else(|| first(&self.any))
            .or(self.catch_all)?;
        let prefix = wanted(&found).path.prefix_bytes();
        Some(Matched { rule: &rules[found.rule as usize], prefix })
    }

    /// The buckets of the prefixes of `path`, the longest first. A prefix ends where a segment does.
    fn buckets(&self, path: &str) -> impl Iterator<Item = &Bucket> {
        let is_end = |length: &&usize| matches!(path.as_bytes().get(**length), None | Some(b'/'));
        let ends = self.lengths.iter().filter(|length| **length <= path.len()).filter(is_end);
        // "" is the prefix of every path that begins with a slash: not of "*".
        let ends = ends.filter(|length| **length > 0 || path.starts_with('/'));
        ends.filter_map(|length| self.prefixes.get(path.get(..*length)?))
    }
}
