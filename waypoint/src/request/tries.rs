//! How often a request is tried, and when.
//!
//! Invariants: a repetition is allowed by its verdict, its number, its deadline and the budget of its
//! destination, all of them; each that is not made is counted, and why.
//! Not here: what may be repeated (`resilience::retry`).
//! Source: design D8; spec L7 §2.9, §3.6, §3.7.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::cluster::Permit;
use crate::metrics::Repetition;
use crate::outcome::Outcome;
use crate::request::attempt::Attempts;
use crate::request::replay::Repeated;
use crate::resilience::backoff::{self, Asked};
use crate::resilience::deadline;
use crate::resilience::retry::{self, Ended, Terms, Verdict};
use crate::upstream::Reuse;

/// How many attempts a request has had, on all hops that tell.
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// Beyond it a count is none that a mesh has made.
const MOST_BEFORE: u32 = 1_000;

/// Design D8: endpoints tried for what was not delivered, unless the route says how many.
const TRIES: u32 = 3;
/// Further ones for connections that had been closed while they rested: nobody was asked.
const STALE: u32 = 3;

/// The tries of one request.
pub(super) struct Tries<'a> {
    attempts: &'a Attempts<'a>,
    deadline: Option<Instant>,
    number: u32,
    most: u32,
    stale: u32,
    /// Held while the request is sent again, where the destination's rule limits that.
    permit: Option<Permit>,
}

/// What follows an attempt.
pub(super) enum Next {
    /// Another one, after this time.
    After(Duration),
    /// None; and why, where the request would have been repeated otherwise.
    Stop(Option<Outcome>),
}

/// Attempts of hops before this one; 0 for a request that no hop repeats.
pub(super) fn earlier(headers: &HeaderMap) -> u32 {
    let count = headers.get(ATTEMPT_COUNT).and_then(|count| count.to_str().ok()?.parse().ok());
    count.filter(|count| (1..=MOST_BEFORE).contains(count)).map_or(0, |count: u32| count - 1)
}

impl<'a> Tries<'a> {
    /// The first one is about to be made.
    pub(super) fn new(attempts: &'a Attempts<'a>, deadline: Option<Instant>) -> Self {
        let limits = &attempts.limits;
        let most = limits.retry.map_or(TRIES, |retry| retry.attempts.saturating_add(1));
        if limits.earlier == 0 {
            attempts.with_budget(|budget, allowance, now| budget.request(allowance, now));
        }
        Self { attempts, deadline, number: 1, most, stale: 0, permit: None }
    }

    /// Which one it is, from 1.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// How many there may be.
    pub(super) fn most(&self) -> u32 {
        self.most
    }

    /// Numbers the attempt, and tells how much time is left.
    pub(super) fn announce(&self, headers: &mut HeaderMap) {
        let limits = &self.attempts.limits;
        headers.insert(ATTEMPT_COUNT, HeaderValue::from(limits.earlier + self.number));
        let left = self.deadline.map(|deadline| deadline - Instant::now());
        if let Some(left) = [left, limits.backend].into_iter().flatten().min() {
            deadline::tell(headers, left, limits.is_grpc);
        }
    }

    /// Which connections may be used: one that rested may be closed just as it is used.
    pub(super) fn reuse(&self, repeated: &Repeated) -> Reuse {
        match self.verdict(Ended::Unknown { reused: true }, repeated) {
            Verdict::Safe | Verdict::OptedIn if self.number < self.most => Reuse::Any,
            _ => Reuse::Proven,
        }
    }

    /// What follows an attempt that ended so; `answer` are the headers of its answer, if there is one.
    pub(super) fn next(&mut self, ended: Ended, repeated: &Repeated, answer: &HeaderMap) -> Next {
        let kind = match self.verdict(ended, repeated) {
            Verdict::No => return Next::Stop(None),
            Verdict::Unsafe => return self.stop(Repetition::RefusedUnsafe, None),
            Verdict::Safe => Repetition::Safe,
            Verdict::OptedIn => Repetition::OptedIn,
        };
        if ended == Ended::Stale && self.stale < STALE {
            self.stale += 1;
            return Next::After(Duration::ZERO);
        }
        if self.number >= self.most {
            return Next::Stop(Some(Outcome::RETRIES_EXHAUSTED));
        }
        let wait = match backoff::asked(answer) {
            Asked::TooLong => return Next::Stop(None),
            // More, and not all at once.
            Asked::Wait(time) => time + self.wait(ended),
            Asked::Nothing => self.wait(ended),
        };
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| now + wait >= deadline) {
            return Next::Stop(None);
        }
        if self.permit.is_none() {
            match self.attempts.cluster.repetition() {
                Ok(permit) => self.permit = permit,
                Err(_) => {
                    let outcome = Outcome::RETRY_BUDGET_EXHAUSTED;
                    return self.stop(Repetition::BudgetExhausted, Some(outcome));
                }
            }
        }
        let has_leave =
            self.attempts.with_budget(|budget, allowance, now| budget.take(allowance, now));
        if has_leave == Some(false) {
            return self.stop(Repetition::BudgetExhausted, Some(Outcome::RETRY_BUDGET_EXHAUSTED));
        }
        self.attempts.count(kind);
        self.number += 1;
        Next::After(wait)
    }

    /// What reached nobody goes to somebody else at once, the first time.
    fn wait(&self, ended: Ended) -> Duration {
        let least = self.attempts.limits.retry.and_then(|retry| retry.backoff);
        match (ended, least, self.number) {
            (Ended::Undelivered | Ended::Stale, None, 1) => Duration::ZERO,
            _ => backoff::wait(self.number, least, fastrand::f64()),
        }
    }

    fn verdict(&self, ended: Ended, repeated: &Repeated) -> Verdict {
        let (retry, upgrade) = (self.attempts.limits.retry, self.attempts.upgrade);
        retry::verdict(
            ended,
            Terms {
                idempotent: retry::is_idempotent(repeated.head().method()) && !upgrade,
                opted_in: retry.is_some_and(|retry| retry.delivered) && !upgrade,
                asked: retry.is_some_and(|retry| {
                    retry.attempts > 0 && (retry.broken || ended == Ended::Answered)
                }),
                whole: repeated.is_whole(),
            },
        )
    }

    fn stop(&self, why: Repetition, outcome: Option<Outcome>) -> Next {
        self.attempts.count(why);
        Next::Stop(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_hops_before_are_believed_within_reason() {
        for (value, expected) in
            [("1", 0), ("3", 2), ("1000", 999), ("1001", 0), ("0", 0), ("-1", 0), ("x", 0)]
        {
            let value = HeaderValue::from_static(value);
            assert_eq!(earlier(&HeaderMap::from_iter([(ATTEMPT_COUNT, value)])), expected);
        }
        assert_eq!(earlier(&HeaderMap::new()), 0);
    }
}
