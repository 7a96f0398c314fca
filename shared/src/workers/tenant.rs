//! Somebody whose tasks share the workers with those of others: for ztunnel a pod.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::WorkerId;
use super::thread::Settled;

/// What one tenant may take of the workers while others want something, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Workers that it may fill where others are at home; 0 for no limit. At most all active ones
    /// but one, which is left to others.
    pub workers: usize,
    /// How long its tasks run on a worker before those of others get their turn; zero for no limit.
    /// Short turns cost switches, long ones make others wait.
    pub turn: Duration,
}

/// What a tenant takes of the workers, as they tell it now and then.
#[derive(Clone, Copy, Debug)]
pub enum Usage {
    /// The worker has run its tasks for so long since it told last.
    Ran(Duration),
    /// So often its turn was over and its tasks waited for others.
    TurnsOver(u64),
    /// A connection was kept on a worker that the tenant fills, because the others are left to others.
    KeptBack,
}

/// A group of tasks with a home among the workers, a share of their time, and an account of it.
pub struct Tenant {
    limits: Limits,
    home: Mutex<Option<Settled>>,
    /// Its part of each worker's last interval, in thousandths.
    shares: Box<[AtomicU32]>,
    tell: Box<dyn Fn(Usage) + Send + Sync>,
}

impl Tenant {
    /// A tenant of as many workers as there can be; `tell` hears, on a worker, what it takes of them:
    /// every [`interval`](super::Config::interval), and when a connection is kept back.
    pub fn new(
        limits: Limits,
        workers: usize,
        tell: impl Fn(Usage) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let shares = std::iter::repeat_with(AtomicU32::default).take(workers).collect();
        Arc::new(Self { limits, home: Mutex::default(), shares, tell: Box::new(tell) })
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Where new tasks go. Locked while that is decided.
    pub(super) fn home(&self) -> &Mutex<Option<Settled>> {
        &self.home
    }

    /// Its part of the worker's last interval, in thousandths.
    pub(super) fn share(&self, worker: WorkerId) -> u32 {
        self.shares.get(worker.index()).map_or(0, |share| share.load(Ordering::Relaxed))
    }

    /// Called by the worker itself.
    pub(super) fn set_share(&self, worker: WorkerId, permille: u32) {
        if let Some(share) = self.shares.get(worker.index()) {
            share.store(permille, Ordering::Relaxed);
        }
    }

    pub(super) fn tell(&self, usage: Usage) {
        (self.tell)(usage);
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let home = self.home.lock().as_ref().map(Settled::worker);
        f.debug_struct("Tenant").field("home", &home).finish_non_exhaustive()
    }
}
