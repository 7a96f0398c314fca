//! Data-plane threads: each owns its connections, nothing on the byte path crosses between them.
//!
//! | module | holds |
//! |---|---|
//! | [`Tenant`] | somebody whose tasks share the workers with those of others |
//! | `placement` | which worker gets a new task |
//! | `turn` | who waits on a worker, when several tenants have something to do |
//! | `thread` | one worker |
//!
//! Invariants: a task runs on the worker that it was given to until it ends; one worker is active at
//! the start (or as many as the program wants), a second one joins for a second tenant, and others
//! under load, up to the limit (few workers are cheaper than many); a worker that dies takes the
//! process with it, because its connections and listeners would hang.
//! Not here: what the tasks do.

mod placement;
mod tenant;
mod thread;
mod turn;

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use self::placement::{Choice, Guest, Load};
pub use self::tenant::{Limits, Tenant, Usage};
use self::thread::{Job, Seat, Settled};
pub use self::turn::{InTurn, inherit};

/// How many workers, and when another one joins.
#[derive(Clone, Debug)]
pub struct Config {
    /// Workers from the start on, at least 1 and at most the limit; default 1. More cost memory and
    /// switches, and take connections that last before there is load.
    pub initial: usize,
    /// Upper limit of workers; default the CPUs of this process, at least 1. More than CPUs only adds switches.
    pub limit: usize,
    /// A further worker joins when the busiest one was busy for more than this share (0 to 1) of an
    /// [`interval`](Self::interval); default 0.7. Near 1 latency suffers first, near 0 idle threads are started.
    pub busy_share: f64,
    /// How often a worker measures its share and shows its heartbeat; default 200 ms.
    pub interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let limit = std::thread::available_parallelism().map_or(1, usize::from);
        Self { initial: 1, limit, busy_share: 0.7, interval: Duration::from_millis(200) }
    }
}

/// Names a worker: its thread is called `culvert-<n>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(usize);

impl WorkerId {
    /// Position from 0, below the limit: good as an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "culvert-{}", self.0)
    }
}

/// What a worker has done so far, for metrics.
#[derive(Clone, Copy, Debug)]
pub struct Activity {
    /// Which worker.
    pub id: WorkerId,
    /// Tasks given to it that have not ended.
    pub live: usize,
    /// Time spent running tasks since it started.
    pub busy: Duration,
    /// Times it went to sleep.
    pub parks: u64,
    /// Times it went to sleep or woke.
    pub parks_and_unparks: u64,
}

/// The worker that runs this thread, if it is one.
#[must_use]
pub fn current() -> Option<WorkerId> {
    CURRENT.get().map(|(_, id)| id)
}

thread_local! {
    /// Pool (by address) and worker of this thread.
    static CURRENT: Cell<Option<(usize, WorkerId)>> = const { Cell::new(None) };
}

/// Where a tenant's next task should live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    /// There.
    pub worker: WorkerId,
    /// Where the tenant is at home now; most of the time the same.
    pub home: WorkerId,
}

/// The workers of this process. Cheap to clone.
#[derive(Clone)]
pub struct Workers {
    pool: Arc<Pool>,
}

type OnStart = Arc<dyn Fn(WorkerId) + Send + Sync>;

struct Pool {
    config: Config,
    /// Zero of the heartbeat clocks.
    origin: Instant,
    seats: Vec<OnceLock<Seat>>,
    active: AtomicUsize,
    closing: AtomicBool,
    /// Runs on every worker when it starts. The lock also makes starting one at a time.
    on_start: Mutex<Vec<OnStart>>,
}

impl Workers {
    /// Starts the first workers.
    ///
    /// # Errors
    /// The thread or its event loop cannot be made.
    pub fn start(config: Config) -> io::Result<Self> {
        let seats = std::iter::repeat_with(OnceLock::new).take(config.limit.max(1)).collect();
        let pool = Arc::new(Pool {
            config,
            origin: Instant::now(),
            seats,
            active: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            on_start: Mutex::new(Vec::new()),
        });
        for _ in 0..pool.config.initial.clamp(1, pool.seats.len()) {
            pool.grow()?;
        }
        Ok(Self { pool })
    }

    /// Where a new connection should live: the worker with the least to do now.
    #[must_use]
    pub fn least_loaded(&self) -> WorkerId {
        placement::least(self.pool.loads()).unwrap_or(WorkerId(0))
    }

    /// Where a new task of `tenant` should live: at its home, which is chosen when it is first asked
    /// for and moves when others crowd it, or on further workers, when the tenant fills its home.
    #[must_use]
    pub fn near(&self, tenant: &Tenant) -> Near {
        let mut settled = tenant.home().lock();
        if settled.is_none() {
            self.pool.make_room();
        }
        let home = settled.as_ref().map(Settled::worker);
        let guest =
            Guest { home: home.map(|id| (id, tenant.share(id))), most: tenant.limits().workers };
        // There is always a first worker.
        let first = Choice::Home(WorkerId(0));
        let worker = match placement::place(self.pool.loads(), guest).unwrap_or(first) {
            Choice::Home(worker) => {
                if home != Some(worker) {
                    *settled = self.pool.seat(worker).map(|seat| seat.settle(worker));
                }
                worker
            }
            Choice::Beside(worker) => worker,
            Choice::KeptBack(worker) => {
                tenant.tell(Usage::KeptBack);
                worker
            }
        };
        Near { worker, home: settled.as_ref().map_or(worker, Settled::worker) }
    }

    /// As [`spawn`](Self::spawn); the task, and those that it makes of what it [`inherit`]s to, are
    /// charged to `tenant` and run in its turns.
    pub fn spawn_for<F, Fut>(&self, tenant: Arc<Tenant>, on: WorkerId, task: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.spawn(on, move || turn::run(turn::of(&tenant), task()));
    }

    /// Runs `task` on the worker `on`, as a local task that counts as load until it ends.
    /// After [`shutdown`](Self::shutdown) the task is dropped unrun.
    pub fn spawn<F, Fut>(&self, on: WorkerId, task: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let Some(seat) = self.pool.seat(on) else { return };
        let live = seat.admit();
        let job = move || {
            tokio::task::spawn_local(async move {
                let live = live;
                task().await;
                drop(live);
            });
        };
        if CURRENT.get() == Some((self.pool.address(), on)) {
            job();
        } else {
            seat.send(Job::Run(Box::new(job)));
        }
    }

    /// Runs `task` once on every worker: now on the active ones, later on those that join.
    /// It runs inside the worker's event loop, so it may spawn local tasks. It must not panic.
    pub fn each<F>(&self, task: F)
    where
        F: Fn(WorkerId) + Clone + Send + Sync + 'static,
    {
        let mut on_start = self.pool.on_start.lock();
        for (id, seat) in self.pool.active() {
            let task = task.clone();
            seat.send(Job::Run(Box::new(move || task(id))));
        }
        on_start.push(Arc::new(task));
    }

    /// How long ago each active worker last went round its event loop. A worker that does not
    /// within a few intervals is stuck.
    #[must_use]
    pub fn heartbeats(&self) -> Vec<(WorkerId, Duration)> {
        let now = self.pool.origin.elapsed();
        self.pool.active().map(|(id, seat)| (id, now.saturating_sub(seat.beat()))).collect()
    }

    /// What each active worker has done so far.
    #[must_use]
    pub fn activity(&self) -> Vec<Activity> {
        self.pool.active().map(|(id, seat)| seat.activity(id)).collect()
    }

    /// Tasks that have not ended, on all workers.
    #[must_use]
    pub fn live(&self) -> usize {
        self.pool.active().map(|(_, seat)| seat.load().live).sum()
    }

    /// The largest number of workers that there can be.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.pool.seats.len()
    }

    /// Waits until all tasks have ended or `deadline` has passed, drops the tasks that are left, and
    /// ends the threads. Blocks; a worker that does not come back (a blocking call in a task) is
    /// left behind after a further second.
    pub fn shutdown(self, deadline: Instant) {
        let on_start = self.pool.on_start.lock();
        self.pool.closing.store(true, Ordering::Release);
        drop(on_start);
        for (_, seat) in self.pool.active() {
            seat.send(Job::Stop(deadline));
        }
        let patience = deadline + Duration::from_secs(1);
        for (id, seat) in self.pool.active() {
            if !seat.wait_for_end(patience) {
                tracing::error!(worker = %id, "worker did not stop, leaving it behind");
            }
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("active", &self.pool.active.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl Pool {
    fn active(&self) -> impl Iterator<Item = (WorkerId, &Seat)> + Clone {
        self.seats
            .iter()
            .enumerate()
            .map_while(|(index, seat)| Some((WorkerId(index), seat.get()?)))
    }

    fn loads(&self) -> impl Iterator<Item = (WorkerId, Load)> + Clone {
        self.active().map(|(id, seat)| (id, seat.load()))
    }

    fn seat(&self, id: WorkerId) -> Option<&Seat> {
        self.seats.get(id.0)?.get()
    }

    /// Starts a second worker, when the first is somebody's home: so nobody has to share with
    /// whoever comes first.
    fn make_room(self: &Arc<Self>) {
        let is_shared = self.active.load(Ordering::Acquire) == 1
            && self.loads().all(|(_, load)| load.settled > 0);
        if is_shared && let Err(error) = self.grow() {
            tracing::warn!(%error, "starting a further worker failed");
        }
    }

    /// Starts one more worker, unless the limit is reached or the pool is closing.
    fn grow(self: &Arc<Self>) -> io::Result<()> {
        let on_start = self.on_start.lock();
        let index = self.active.load(Ordering::Acquire);
        if index >= self.seats.len() || self.closing.load(Ordering::Acquire) {
            return Ok(());
        }
        let seat = Seat::start(self, WorkerId(index), on_start.clone())?;
        if self.seats[index].set(seat).is_ok() {
            self.active.store(index + 1, Ordering::Release);
        }
        Ok(())
    }

    fn address(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }
}

#[cfg(test)]
mod tests;
