//! Matches of one path, found by a header.
//!
//! Invariants: what is found is the first in order of precedence, as if all were tried in turn.

use std::collections::HashMap;

use http::HeaderName;
use shared::mesh::{HttpMatch, ValueMatch};

use super::conditions::Asked;
use super::precedence::{Candidate, MatchId};

/// So many matches are tried in turn, which is faster than looking for them.
const FEW: usize = 4;

/// Matches in order of precedence.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    all: Box<[MatchId]>,
    /// When there are many: where those are that want an exact value of a header.
    by_header: Option<Box<ByHeader>>,
}

/// Places in the bucket, in order.
#[derive(Debug, Default)]
struct ByHeader {
    /// Of the matches whose first exact header is this one: by its value.
    names: HashMap<HeaderName, ByValue>,
    /// Of those without any.
    rest: Vec<u32>,
}

type ByValue = HashMap<Box<[u8]>, Vec<u32>>;

impl Bucket {
    /// A bucket of matches that are in order.
    pub(super) fn new(candidates: &[Candidate<'_>]) -> Self {
        let all = candidates.iter().map(|one| one.id).collect();
        let by_header = (candidates.len() > FEW).then(|| {
            let mut by_header = ByHeader::default();
            for (candidate, at) in candidates.iter().zip(0..) {
                by_header.list(candidate.wanted).push(at);
            }
            Box::new(by_header)
        });
        Self { all, by_header }
    }

    /// The first match that `meets` the request.
    pub(super) fn find(
        &self,
        asked: &Asked<'_>,
        meets: impl Fn(&MatchId) -> bool,
    ) -> Option<MatchId> {
        let Some(by_header) = &self.by_header else {
            return self.all.iter().copied().find(meets);
        };
        let mut best = self.all.len();
        let mut search = |places: &[u32]| {
            let before = places.iter().map(|at| *at as usize).take_while(|at| *at < best);
            if let Some(at) = before.into_iter().find(|at| meets(&self.all[*at])) {
                best = at;
            }
        };
        for (name, by_value) in &by_header.names {
            let places = asked.header(name).and_then(|value| by_value.get(&*value));
            places.into_iter().for_each(|places| search(places));
        }
        search(&by_header.rest);
        self.all.get(best).copied()
    }
}

impl ByHeader {
    /// Where a match belongs.
    fn list(&mut self, wanted: &HttpMatch) -> &mut Vec<u32> {
        let exact = wanted.headers.iter().find_map(|one| match &one.value {
            ValueMatch::Exact(value) => Some((&one.name, value)),
            ValueMatch::Regex(_) | ValueMatch::Start(_) | ValueMatch::Present => None,
        });
        let Some((name, value)) = exact else { return &mut self.rest };
        let by_value = self.names.entry(name.clone()).or_default();
        by_value.entry(value.as_bytes().into()).or_default()
    }
}
