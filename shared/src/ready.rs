//! Whether the process may be given work: nothing pending, and every worker alive.
//!
//! Invariants: ready only while no blocker is pending and no check complains; a blocker that is
//! dropped without being cleared stays pending, so a part that dies at the start or during a drain
//! never makes the process look ready.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::workers::Workers;

/// A worker whose last turn is older than this is stuck. Long enough for a busy machine, shorter
/// than the three probes of 10 s after which a kubelet acts.
const STUCK_AFTER: Duration = Duration::from_secs(3);

/// What keeps the process from being ready. Cheap to clone.
#[derive(Clone, Default)]
pub struct Ready {
    state: Arc<State>,
}

type Check = Box<dyn Fn() -> Vec<String> + Send + Sync>;

#[derive(Default)]
struct State {
    /// How many blockers of each name are pending.
    pending: Mutex<BTreeMap<String, usize>>,
    checks: Mutex<Vec<Check>>,
}

impl Ready {
    /// Adds something that must happen first.
    pub fn block(&self, name: impl Into<String>) -> Blocker {
        let name = name.into();
        *self.state.pending.lock().entry(name.clone()).or_default() += 1;
        Blocker { state: self.state.clone(), name }
    }

    /// Adds a check that runs at every question; it names what is wrong, and must not block.
    pub fn check(&self, check: impl Fn() -> Vec<String> + Send + Sync + 'static) {
        self.state.checks.lock().push(Box::new(check));
    }

    /// Not ready while a worker is stuck.
    pub fn watch(&self, workers: Workers) {
        self.check(move || {
            workers
                .heartbeats()
                .into_iter()
                .filter(|(_, age)| *age > STUCK_AFTER)
                .map(|(id, age)| format!("worker {id} stuck for {} s", age.as_secs()))
                .collect()
        });
    }

    /// What is missing, sorted; empty means ready.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        let mut pending: Vec<String> = self.state.pending.lock().keys().cloned().collect();
        pending.extend(self.state.checks.lock().iter().flat_map(|check| check()));
        pending.sort();
        pending
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("pending", &self.pending()).finish()
    }
}

/// Something that must happen before the process is ready.
#[must_use = "the process is not ready until this is cleared"]
pub struct Blocker {
    state: Arc<State>,
    name: String,
}

impl Blocker {
    /// It happened.
    pub fn clear(self) {
        let mut pending = self.state.pending.lock();
        if let Some(count) = pending.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                pending.remove(&self.name);
            }
        }
    }
}

impl fmt::Debug for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Blocker").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_blocker_is_cleared() {
        let ready = Ready::default();
        let pods = ready.block("pods");
        let feed = ready.block("mesh directory");
        assert_eq!(ready.pending(), ["mesh directory", "pods"]);
        feed.clear();
        assert_eq!(ready.pending(), ["pods"]);
        pods.clear();
        assert!(ready.pending().is_empty());
    }

    #[test]
    fn a_dropped_blocker_stays_pending() {
        let ready = Ready::default();
        drop(ready.block("pods"));
        ready.block("pods").clear();
        assert_eq!(ready.pending(), ["pods"]);
    }

    #[test]
    fn a_check_is_asked_every_time() {
        let ready = Ready::default();
        let wrong = Arc::new(Mutex::new(vec!["worker culvert-1 stuck for 4 s".to_owned()]));
        ready.check({
            let wrong = wrong.clone();
            move || wrong.lock().clone()
        });
        assert_eq!(ready.pending().len(), 1);
        wrong.lock().clear();
        assert!(ready.pending().is_empty());
    }
}
