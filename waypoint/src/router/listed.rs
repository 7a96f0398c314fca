//! The matches of a virtual service, found by path.
//!
//! Invariants: what is found is the first in the order in which they are written, as if all were tried in
//! turn.

use std::collections::HashMap;
use std::sync::Arc;

use shared::mesh::{HttpMatch, PathMatch};

use super::conditions::Asked;
use super::precedence::{Candidate, MatchId};
use super::{Matched, Rule};

/// So many matches are tried in turn, which is faster than looking for them.
const FEW: usize = 4;

/// Matches in the order in which they are written. The lists hold places in it, in order.
#[derive(Debug, Default)]
pub(super) struct Listed {
    all: Box<[MatchId]>,
    /// Of those that want this path.
    exact: Places,
    /// Of those that want a path that begins with these letters.
    starts: Places,
    /// How many letters those are, each once.
    lengths: Box<[usize]>,
    /// Of all others.
    rest: Vec<u32>,
}

type Places = HashMap<Arc<str>, Vec<u32>>;

impl Listed {
    /// Matches that are in order.
    pub(super) fn new(candidates: &[Candidate<'_>]) -> Self {
        let mut listed =
            Self { all: candidates.iter().map(|one| one.id).collect(), ..Self::default() };
        let many = candidates.len() > FEW;
        for (candidate, at) in candidates.iter().zip(0..) {
            let list = match &candidate.wanted.path {
                PathMatch::Exact(path) if many => listed.exact.entry(path.clone()).or_default(),
                PathMatch::Start { text, any_case: false } if many => {
                    listed.starts.entry(text.clone()).or_default()
                }
                _ => &mut listed.rest,
            };
            list.push(at);
        }
        let mut lengths: Vec<usize> = listed.starts.keys().map(|text| text.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        listed.lengths = lengths.into();
        listed
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The first match of a request.
    pub(super) fn find<'t>(
        &self,
        rules: &'t [Arc<Rule>],
        asked: &Asked<'_>,
    ) -> Option<Matched<'t>> {
        let path = asked.path();
        let wanted =
            |id: &MatchId| -> &'t HttpMatch { &rules[id.rule as usize].matches[id.at as usize] };
        let fits = |id: &MatchId| wanted(id).path.is_match(path) && asked.meets(wanted(id));
        let mut best = self.all.len();
        let mut search = |places: Option<&Vec<u32>>| {
            let places = places.into_iter().flatten().map(|at| *at as usize);
            if let Some(at) = places.take_while(|at| *at < best).find(|at| fits(&self.all[*at])) {
                best = at;
            }
        };
        search(self.exact.get(path));
        for length in &self.lengths {
            search(path.get(..*length).and_then(|start| self.starts.get(start)));
        }
        search(Some(&self.rest));
        let id = self.all.get(best)?;
        let prefix = wanted(id).path.prefix_bytes();
        Some(Matched { rule: &rules[id.rule as usize], prefix })
    }
}
