//! How many requests to a destination may be sent again: a share of what was asked for lately.
//!
//! Invariants: whenever one is sent again, those of the last interval are at most `percent` of the
//! requests that came first, and the minimum; no request earns leave twice; one that is a repetition
//! already earns none.
//! Each worker has budgets of its own: nothing on the way of a request is shared between threads.
//! Source: Gateway API XBackendTrafficPolicy, `retryConstraint` (GEP-3388); spec L7 §2.9, §7.1.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use shared::mesh::{RetryConstraint, ServiceKey};
use tokio::time::Instant;

/// Parts into which an interval is cut: what is older than an interval is forgotten in so many steps.
const SLICES: u32 = 10;

/// The requests and repetitions of the last interval.
#[derive(Debug, Default)]
pub struct Budget {
    slices: VecDeque<Slice>,
    requests: u64,
    repeated: u64,
}

/// A tenth of an interval.
#[derive(Debug)]
struct Slice {
    began: Instant,
    requests: u64,
    repeated: u64,
}

impl Budget {
    /// A request has come that is no repetition.
    pub fn request(&mut self, allowance: &RetryConstraint, now: Instant) {
        self.slice(allowance, now).requests += 1;
        self.requests += 1;
    }

    /// Takes leave to send a request again; false when there is none.
    #[must_use]
    pub fn take(&mut self, allowance: &RetryConstraint, now: Instant) -> bool {
        self.forget(allowance, now);
        let earned = self.requests.saturating_mul(allowance.percent.into()) / 100;
        if self.repeated >= earned.saturating_add(allowance.minimum.into()) {
            return false;
        }
        self.slice(allowance, now).repeated += 1;
        self.repeated += 1;
        true
    }

    /// Whether everything in it is older than an interval.
    pub fn is_idle(&mut self, allowance: &RetryConstraint, now: Instant) -> bool {
        self.forget(allowance, now);
        self.slices.is_empty()
    }

    fn slice(&mut self, allowance: &RetryConstraint, now: Instant) -> &mut Slice {
        self.forget(allowance, now);
        let length = allowance.interval / SLICES;
        let is_old = |slice: &Slice| now.saturating_duration_since(slice.began) >= length;
        if self.slices.back().is_none_or(is_old) {
            self.slices.push_back(Slice { began: now, requests: 0, repeated: 0 });
        }
        self.slices.back_mut().expect("one was just put there")
    }

    /// A slice is forgotten when its end is an interval ago.
    fn forget(&mut self, allowance: &RetryConstraint, now: Instant) {
        let limit = allowance.interval + allowance.interval / SLICES;
        while let Some(slice) = self.slices.front()
            && now.saturating_duration_since(slice.began) >= limit
        {
            self.requests -= slice.requests;
            self.repeated -= slice.repeated;
            self.slices.pop_front();
        }
    }
}

/// The budgets of one worker, by destination.
#[derive(Debug, Default)]
pub struct Budgets {
    known: RefCell<HashMap<ServiceKey, (RetryConstraint, Budget)>>,
}

impl Budgets {
    /// Lends the budget of `service`, to be used with `allowance`.
    pub fn lend<T>(
        &self,
        service: &ServiceKey,
        allowance: RetryConstraint,
        use_it: impl FnOnce(&mut Budget, &RetryConstraint) -> T,
    ) -> T {
        let mut known = self.known.borrow_mut();
        if let Some((own, budget)) = known.get_mut(service) {
            *own = allowance;
            return use_it(budget, own);
        }
        let (own, budget) = known.entry(service.clone()).or_default();
        *own = allowance;
        use_it(budget, own)
    }

    /// Forgets destinations that nobody has asked for lately.
    pub fn sweep(&self, now: Instant) {
        self.known.borrow_mut().retain(|_, (allowance, budget)| !budget.is_idle(allowance, now));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn taken(budget: &mut Budget, allowance: &RetryConstraint, now: Instant) -> u32 {
        (0..10_000).take_while(|_| budget.take(allowance, now)).count() as u32
    }

    #[tokio::test(start_paused = true)]
    async fn a_fifth_of_the_requests_and_the_minimum_may_be_repeated() {
        let (now, allowance) = (Instant::now(), RetryConstraint::default());
        let mut budget = Budget::default();
        assert_eq!(taken(&mut budget, &allowance, now), 100);
        (0..1_000).for_each(|_| budget.request(&allowance, now));
        assert_eq!(taken(&mut budget, &allowance, now), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_spent_comes_back_after_an_interval_and_so_does_what_was_earned_go() {
        let (start, allowance) = (Instant::now(), RetryConstraint::default());
        let mut budget = Budget::default();
        (0..1_000).for_each(|_| budget.request(&allowance, start));
        assert_eq!(taken(&mut budget, &allowance, start), 300);
        assert_eq!(taken(&mut budget, &allowance, start + Duration::from_secs(10)), 0);
        let later = start + Duration::from_secs(11);
        assert_eq!(taken(&mut budget, &allowance, later), 100);
        assert!(!budget.is_idle(&allowance, later));
        assert!(budget.is_idle(&allowance, later + Duration::from_secs(11)));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_allowed_where_nothing_is_granted() {
        let now = Instant::now();
        let allowance = RetryConstraint { percent: 0, minimum: 0, ..RetryConstraint::default() };
        let mut budget = Budget::default();
        budget.request(&allowance, now);
        assert!(!budget.take(&allowance, now));
    }

    #[tokio::test(start_paused = true)]
    async fn destinations_have_budgets_of_their_own_while_they_are_asked_for() {
        let (now, allowance) =
            (Instant::now(), RetryConstraint { minimum: 1, ..RetryConstraint::default() });
        let budgets = Budgets::default();
        let take = |name: &str, now| {
            let service = shared::mesh::sample::service_key(name, "shop");
            budgets.lend(&service, allowance, |budget, allowance| budget.take(allowance, now))
        };
        assert!(take("one", now) && take("other", now));
        assert!(!take("one", now));
        let later = now + Duration::from_secs(11);
        budgets.sweep(later);
        assert!(budgets.known.borrow().is_empty());
        assert!(take("one", later));
    }

    proptest! {
        /// At each repetition: repeated ≤ percent × requests + minimum, with the requests of the tenth
        /// of an interval more that is remembered; and the same over all time.
        #[test]
        fn repetitions_never_exceed_the_share_and_the_minimum(
            steps in prop::collection::vec((0_u64..400, 0_u32..8, 0_u32..8), 1..200),
            percent in 0_u8..=100,
            minimum in 0_u32..20,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time().start_paused(true).build().unwrap();
            let start = runtime.block_on(async { Instant::now() });
            let interval = Duration::from_secs(2);
            let allowance = RetryConstraint { percent, interval, minimum };
            let (mut now, mut budget) = (start, Budget::default());
            let (mut requests, mut repeated) = (Vec::new(), Vec::new());
            for (millis, asked, wanted) in steps {
                now += Duration::from_millis(millis);
                for _ in 0..asked {
                    budget.request(&allowance, now);
                    requests.push(now);
                }
                for _ in 0..wanted {
                    if !budget.take(&allowance, now) {
                        break;
                    }
                    repeated.push(now);
                    let within = |all: &[Instant], length: Duration| {
                        all.iter().filter(|at| now - **at < length).count() as u64
                    };
                    let earned = within(&requests, interval * 11 / 10) * u64::from(percent) / 100;
                    let spent = within(&repeated, interval);
                    let most = earned + u64::from(minimum);
                    prop_assert!(spent <= most, "{spent} > {most}");
                }
            }
            let intervals = (now - start).as_secs_f64() / interval.as_secs_f64() + 1.0;
            let earned = requests.len() as f64 * f64::from(percent) / 100.0;
            prop_assert!(repeated.len() as f64 <= earned + f64::from(minimum) * intervals.ceil());
        }
    }
}
