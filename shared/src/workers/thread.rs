//! One worker: its thread, its event loop, and what others see of it.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc as blocking};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::placement::Load;
use super::{Activity, CURRENT, OnStart, Pool, WorkerId, turn};

/// Tasks that run before sockets and timers are looked at. tokio's 61 are right for tasks of
/// microseconds; a turn of bulk is a fifth of a millisecond, so a request beside bulk that never
/// rests would wait for 12 ms at each proxy.
const EVENT_INTERVAL: u32 = 8;

/// What a worker is told from other threads.
pub(super) enum Job {
    /// Run this inside the event loop.
    Run(Box<dyn FnOnce() + Send>),
    /// End when no task is left, or at this time with those that are.
    Stop(Instant),
}

/// A started worker, as seen from other threads.
pub(super) struct Seat {
    jobs: mpsc::UnboundedSender<Job>,
    gauges: Arc<Gauges>,
    runtime: Handle,
    ended: Mutex<blocking::Receiver<()>>,
}

/// Written by the worker, read by anyone.
#[derive(Default)]
struct Gauges {
    /// Milliseconds since the pool's origin.
    beat_millis: AtomicU64,
    busy_permille: AtomicU32,
    placed: AtomicU32,
    live: AtomicUsize,
    settled: AtomicUsize,
    idle: tokio::sync::Notify,
}

/// A task counted as load until it ends or is dropped.
pub(super) struct Live(Arc<Gauges>);

impl Drop for Live {
    fn drop(&mut self) {
        if self.0.live.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_one();
        }
    }
}

/// A tenant's home, until it is dropped.
pub(super) struct Settled {
    worker: WorkerId,
    gauges: Arc<Gauges>,
}

impl Settled {
    pub(super) fn worker(&self) -> WorkerId {
        self.worker
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        self.gauges.settled.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seat {
    /// Starts the thread and waits until its event loop is there, so that its errors reach the caller.
    pub(super) fn start(
        pool: &Arc<Pool>,
        id: WorkerId,
        on_start: Vec<OnStart>,
    ) -> io::Result<Self> {
        let (jobs, receiver) = mpsc::unbounded_channel();
        let (made, ready) = blocking::sync_channel(1);
        let (end, ended) = blocking::sync_channel(1);
        let gauges = Arc::new(Gauges::default());
        gauges.beat_millis.store(millis(pool.origin.elapsed()), Ordering::Relaxed);
        let work = live(pool.clone(), id, gauges.clone(), receiver, on_start);
        let address = pool.address();
        std::thread::Builder::new().name(id.to_string()).spawn(move || {
            let runtime = match Builder::new_current_thread()
                .enable_all()
                .event_interval(EVENT_INTERVAL)
                .on_thread_park(turn::rest)
                .build_local(LocalOptions::default())
            {
                Ok(runtime) => runtime,
                Err(error) => return drop(made.send(Err(error))),
            };
            made.send(Ok(runtime.handle().clone())).ok();
            let alarm = Alarm(id);
            CURRENT.set(Some((address, id)));
            runtime.block_on(work);
            // Tasks that outlived the deadline end here, on their own thread.
            drop(runtime);
            std::mem::forget(alarm);
            end.send(()).ok();
        })?;
        let runtime = ready.recv().map_err(io::Error::other)??;
        Ok(Self { jobs, gauges, runtime, ended: Mutex::new(ended) })
    }

    pub(super) fn send(&self, job: Job) {
        // A worker that has stopped drops what it is given.
        self.jobs.send(job).ok();
    }

    pub(super) fn admit(&self) -> Live {
        self.gauges.live.fetch_add(1, Ordering::AcqRel);
        self.gauges.placed.fetch_add(1, Ordering::Relaxed);
        Live(self.gauges.clone())
    }

    pub(super) fn load(&self) -> Load {
        Load {
            busy_permille: self.gauges.busy_permille.load(Ordering::Relaxed),
            placed: self.gauges.placed.load(Ordering::Relaxed),
            live: self.gauges.live.load(Ordering::Acquire),
            settled: self.gauges.settled.load(Ordering::Relaxed),
        }
    }

    /// A tenant is at home here from now on.
    pub(super) fn settle(&self, worker: WorkerId) -> Settled {
        self.gauges.settled.fetch_add(1, Ordering::Relaxed);
        Settled { worker, gauges: self.gauges.clone() }
    }

    pub(super) fn beat(&self) -> Duration {
        Duration::from_millis(self.gauges.beat_millis.load(Ordering::Relaxed))
    }

    pub(super) fn activity(&self, id: WorkerId) -> Activity {
        let metrics = self.runtime.metrics();
        Activity {
            id,
            live: self.gauges.live.load(Ordering::Acquire),
            busy: metrics.worker_total_busy_duration(0),
            parks: metrics.worker_park_count(0),
            parks_and_unparks: metrics.worker_park_unpark_count(0),
        }
    }

    /// False when the thread is still there at `deadline`.
    pub(super) fn wait_for_end(&self, deadline: Instant) -> bool {
        let patience = deadline.saturating_duration_since(Instant::now());
        !matches!(
            self.ended.lock().recv_timeout(patience),
            Err(blocking::RecvTimeoutError::Timeout)
        )
    }
}

/// The life of a worker: take jobs, show a heartbeat, until told to stop.
async fn live(
    pool: Arc<Pool>,
    id: WorkerId,
    gauges: Arc<Gauges>,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    on_start: Vec<OnStart>,
) {
    let pulse = tokio::task::spawn_local(pulse(pool, id, gauges.clone()));
    let rounds = tokio::task::spawn_local(turn::end_rounds());
    on_start.iter().for_each(|task| task(id));
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Run(job) => job(),
            Job::Stop(deadline) => {
                tokio::time::timeout_at(deadline, idle(&gauges)).await.ok();
                break;
            }
        }
    }
    pulse.abort();
    rounds.abort();
}

async fn idle(gauges: &Gauges) {
    while gauges.live.load(Ordering::Acquire) > 0 {
        gauges.idle.notified().await;
    }
}

/// Shows that the event loop goes round, measures how busy it was, and calls for help.
fn pulse(pool: Arc<Pool>, id: WorkerId, gauges: Arc<Gauges>) -> impl Future<Output = ()> {
    let metrics = Handle::current().metrics();
    async move {
        let mut busy_before = metrics.worker_total_busy_duration(0);
        let mut then = Instant::now();
        loop {
            tokio::time::sleep(pool.config.interval).await;
            let (busy, now) = (metrics.worker_total_busy_duration(0), Instant::now());
            let share = (busy - busy_before).as_secs_f64() / (now - then).as_secs_f64();
            turn::tell(id, now - then);
            (busy_before, then) = (busy, now);
            gauges.beat_millis.store(millis(pool.origin.elapsed()), Ordering::Relaxed);
            gauges.busy_permille.store(permille(share), Ordering::Relaxed);
            gauges.placed.store(0, Ordering::Relaxed);
            if share > pool.config.busy_share
                && let Err(error) = pool.grow()
            {
                tracing::warn!(worker = %id, %error, "starting a further worker failed");
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=1000 first"
)]
pub(super) fn permille(share: f64) -> u32 {
    (share * 1000.0).clamp(0.0, 1000.0) as u32
}

/// Ends the process when a worker's thread unwinds: its pods would keep their listeners and nobody would accept.
struct Alarm(WorkerId);

impl Drop for Alarm {
    fn drop(&mut self) {
        tracing::error!(worker = %self.0, "worker died, ending the process so that another one can take over");
        std::process::abort();
    }
}
