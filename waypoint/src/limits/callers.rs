//! A bucket for each caller, in bounded memory.
//!
//! Invariants: only a bucket that is full is given up, and it tells so to whoever holds it: a caller
//! never has two. Beyond [`MOST`] callers that are all spending, those who come then share one
//! bucket; a bucket of a caller's own begins as empty as that one is, since the caller may be who emptied
//! it. So a caller passes no more than its rate and burst allow, whoever else comes and goes.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::bucket::{Bucket, Taken};

/// Callers with a bucket of their own, for each limit. About 150 bytes each.
const MOST: usize = 10_000;
/// How often it is looked for full buckets when there is no room. 1 s.
const SWEEP: u64 = 1_000_000_000;

/// A caller's bucket, where a connection has looked it up.
pub(super) type Own = Option<Arc<Bucket>>;

/// The buckets of one limit.
#[derive(Debug)]
pub struct Callers {
    most: usize,
    table: Mutex<Table>,
    /// Of those for whom there is no room.
    joint: Bucket,
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<Box<str>, Arc<Bucket>>,
    /// When full buckets were last looked for because there was no room.
    swept: u64,
}

impl Default for Callers {
    fn default() -> Self {
        Self::with_room(MOST)
    }
}

impl Callers {
    /// With room for so many.
    pub fn with_room(most: usize) -> Self {
        Self { most, table: Mutex::default(), joint: Bucket::default() }
    }

    /// Lets `use_it` have the bucket of `caller`, which `own` remembers.
    pub(super) fn lend(
        &self,
        caller: &str,
        own: &mut Own,
        now: u64,
        use_it: impl Fn(&Bucket) -> Taken,
    ) -> Taken {
        if let Some(bucket) = own {
            let taken = use_it(bucket);
            if taken != Taken::Retired {
                return taken;
            }
        }
        // Buckets are given up under the lock, and used under it until they are found.
        let mut table = self.table.lock();
        *own = self.find(&mut table, caller, now);
        use_it(own.as_deref().unwrap_or(&self.joint))
    }

    fn find(&self, table: &mut Table, caller: &str, now: u64) -> Own {
        if let Some(known) = table.known.get(caller) {
            return Some(Arc::clone(known));
        }
        if table.known.len() >= self.most && now.saturating_sub(table.swept) >= SWEEP {
            table.swept = now;
            table.give_up(now);
        }
        if table.known.len() >= self.most {
            return None;
        }
        let bucket = Arc::new(Bucket::full_at(self.joint.when_full()));
        table.known.insert(caller.into(), Arc::clone(&bucket));
        Some(bucket)
    }

    /// Gives up the buckets that are full.
    pub(super) fn tidy(&self, now: u64) {
        self.table.lock().give_up(now);
    }

    /// Callers with a bucket of their own.
    pub fn len(&self) -> usize {
        self.table.lock().known.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Table {
    fn give_up(&mut self, now: u64) {
        self.known.retain(|_, bucket| !bucket.retire(now));
        self.known.shrink_to(self.known.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use shared::mesh::{Rate, RateUnit};

    use super::*;
    use crate::limits::Pace;

    const SECOND: u64 = 1_000_000_000;

    fn pace(count: u32, burst: u32) -> Pace {
        Rate { count, unit: RateUnit::Second, burst }.into()
    }

    fn take(callers: &Callers, caller: &str, own: &mut Own, pace: Pace, now: u64) -> bool {
        callers.lend(caller, own, now, |bucket| bucket.take(pace, now)) == Taken::Token
    }

    #[test]
    fn a_connection_that_holds_a_bucket_given_up_finds_the_callers_new_one() {
        let (callers, pace) = (Callers::default(), pace(1, 2));
        let (mut one, mut other) = (None, None);
        assert!(take(&callers, "a", &mut one, pace, 0));
        callers.tidy(SECOND);
        assert!(callers.is_empty());
        // Both connections together have one burst.
        assert!(take(&callers, "a", &mut one, pace, SECOND));
        assert!(take(&callers, "a", &mut other, pace, SECOND));
        assert!(!take(&callers, "a", &mut one, pace, SECOND));
        assert_eq!(callers.len(), 1);
    }

    #[test]
    fn those_without_room_share_a_bucket_until_there_is_some() {
        let (callers, pace) = (Callers::with_room(1), pace(1, 3));
        let mut own = [None, None, None];
        assert!(take(&callers, "a", &mut own[0], pace, 0));
        assert!(take(&callers, "b", &mut own[1], pace, 0));
        assert!(take(&callers, "c", &mut own[2], pace, 0));
        assert!(take(&callers, "b", &mut own[1], pace, 0));
        assert!(!take(&callers, "c", &mut own[2], pace, 0));
        assert_eq!(callers.len(), 1);
        // `a` has all its tokens, so `b` gets its place; not with more than the shared one has.
        let passed = (0..3).filter(|_| take(&callers, "b", &mut own[1], pace, SECOND)).count();
        assert_eq!((passed, callers.len()), (1, 1));
        assert_eq!(callers.table.lock().known.keys().next().map(|name| &**name), Some("b"));
    }

    proptest! {
        /// Whoever comes and goes, with more callers than there is room, over several connections
        /// each, and with buckets given up at any time: none passes more than its burst and rate.
        #[test]
        fn no_caller_gains_by_being_forgotten(
            room in 1_usize..4,
            count in 1_u32..50,
            burst in 1_u32..5,
            steps in prop::collection::vec((0_u64..400_000_000, 0_usize..6, 0_usize..3, any::<bool>()), 1..300),
        ) {
            let (callers, pace) = (Callers::with_room(room), pace(count, burst));
            let mut connections: BTreeMap<(usize, usize), Own> = BTreeMap::new();
            let mut passed: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
            let mut now = 0;
            for (step, caller, connection, tidy) in steps {
                now += step;
                let own = connections.entry((caller, connection)).or_default();
                if take(&callers, &caller.to_string(), own, pace, now) {
                    passed.entry(caller).or_default().push(now);
                }
                if tidy {
                    callers.tidy(now);
                }
                prop_assert!(callers.len() <= room);
            }
            for times in passed.values() {
                for (first, from) in times.iter().enumerate() {
                    for (last, to) in times.iter().enumerate().skip(first) {
                        let earned = (to - from) * u64::from(count) / SECOND;
                        prop_assert!((last - first + 1) as u64 <= u64::from(burst) + earned);
                    }
                }
            }
        }
    }
}
