//! The limits of one route or service.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shared::mesh::{Rate, RateLimits};
use tokio::time::Instant;

use super::bucket::{Bucket, Pace, Taken};
use super::callers::{Callers, Own};
use super::{Limited, Owner};

/// For whom a limit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All callers together.
    Together,
    /// Each caller.
    PerCaller,
}

impl Scope {
    /// In the order of [`Limiter`]'s counters.
    pub const ALL: [Self; 2] = [Self::Together, Self::PerCaller];

    /// As metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Together => "together",
            Self::PerCaller => "per_caller",
        }
    }

    /// Where it is written.
    pub fn annotation(self) -> &'static str {
        match self {
            Self::Together => "culvert.dev/rate-limit",
            Self::PerCaller => "culvert.dev/rate-limit-per-caller",
        }
    }
}

/// What all workers know together about one owner's limits.
#[derive(Debug)]
pub struct Limiter {
    owner: Owner,
    limits: RateLimits,
    /// Times are counted from here.
    began: Instant,
    together: Bucket,
    callers: Callers,
    refused: [AtomicU64; 2],
}

impl Limiter {
    pub(super) fn new(owner: Owner, limits: RateLimits, began: Instant) -> Self {
        Self {
            owner,
            limits,
            began,
            together: Bucket::default(),
            callers: Callers::default(),
            refused: Default::default(),
        }
    }

    /// Whose it is.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What it limits.
    pub fn limits(&self) -> RateLimits {
        self.limits
    }

    /// Its callers.
    pub fn callers(&self) -> &Callers {
        &self.callers
    }

    /// How often there was no token.
    pub fn refused(&self, scope: Scope) -> u64 {
        self.refused[scope as usize].load(Ordering::Relaxed)
    }

    /// Whether there are tokens for a request of `caller`.
    ///
    /// # Errors
    /// There are none; it is counted.
    pub(super) fn has(&self, caller: &str, own: &mut Own, now: Instant) -> Result<(), Limited> {
        self.each(caller, own, now, Bucket::has)
    }

    /// Takes them.
    ///
    /// # Errors
    /// There are none; it is counted.
    pub(super) fn take(&self, caller: &str, own: &mut Own, now: Instant) -> Result<(), Limited> {
        self.each(caller, own, now, Bucket::take)
    }

    pub(super) fn tidy(&self, now: Instant) {
        self.callers.tidy(self.nanos(now));
    }

    /// A caller that is over its own limit takes nothing from all others.
    fn each(
        &self,
        caller: &str,
        own: &mut Own,
        now: Instant,
        use_it: fn(&Bucket, Pace, u64) -> Taken,
    ) -> Result<(), Limited> {
        let now = self.nanos(now);
        if let Some(rate) = self.limits.per_caller {
            let pace = Pace::from(rate);
            let taken = self.callers.lend(caller, own, now, |bucket| use_it(bucket, pace, now));
            self.check(Scope::PerCaller, rate, taken)?;
        }
        if let Some(rate) = self.limits.together {
            let taken = use_it(&self.together, rate.into(), now);
            self.check(Scope::Together, rate, taken)?;
        }
        Ok(())
    }

    fn check(&self, scope: Scope, rate: Rate, taken: Taken) -> Result<(), Limited> {
        let wait = match taken {
            Taken::Token => return Ok(()),
            Taken::Nothing(wait) => Duration::from_nanos(wait),
            // One that others share is never given up.
            Taken::Retired => Duration::ZERO,
        };
        self.refused[scope as usize].fetch_add(1, Ordering::Relaxed);
        Err(Limited { owner: self.owner.clone(), scope, rate, wait })
    }

    fn nanos(&self, now: Instant) -> u64 {
        // 584 years.
        u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX >> 1)
    }
}
