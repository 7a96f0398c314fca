use std::rc::Rc;
use std::sync::mpsc::channel;
use std::task::Poll;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn workers(limit: usize) -> Workers {
    Workers::start(Config { limit, interval: Duration::from_millis(20), ..Config::default() })
        .unwrap()
}

fn eventually(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "did not become true in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

#[test]
fn a_task_runs_as_a_local_task_on_the_worker_it_was_given_to() {
    let workers = workers(1);
    let (tx, rx) = channel();
    workers.spawn(WorkerId(0), move || async move {
        let local = Rc::new(1);
        tokio::task::spawn_local(async move { drop(local) }).await.unwrap();
        tx.send((current(), std::thread::current().name().map(str::to_owned))).unwrap();
    });
    assert_eq!(
        rx.recv_timeout(PATIENCE).unwrap(),
        (Some(WorkerId(0)), Some("culvert-0".to_owned()))
    );
    assert_eq!(current(), None);
    workers.shutdown(soon());
}

#[test]
fn only_one_worker_is_active_without_load() {
    let workers = workers(4);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(workers.heartbeats().len(), 1);
    assert_eq!(workers.limit(), 4);
    workers.shutdown(soon());
}

#[test]
fn load_adds_workers_up_to_the_limit_and_runs_what_was_registered_on_them() {
    let workers = workers(2);
    let (tx, rx) = channel();
    workers.each(move |id| tx.send(id).unwrap());
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), WorkerId(0));
    let stop = Arc::new(AtomicBool::new(false));
    for _ in 0..2 {
        let stop = stop.clone();
        workers.spawn(WorkerId(0), move || async move {
            while !stop.load(Ordering::Relaxed) {
                let end = Instant::now() + Duration::from_millis(1);
                while Instant::now() < end {}
                tokio::task::yield_now().await;
            }
        });
    }
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), WorkerId(1));
    eventually(|| workers.least_loaded() == WorkerId(1));
    stop.store(true, Ordering::Relaxed);
    eventually(|| workers.live() == 0);
    assert_eq!(workers.heartbeats().len(), 2);
    workers.shutdown(soon());
}

#[test]
fn a_stuck_worker_shows_in_its_heartbeat() {
    let workers = workers(1);
    let (tx, rx) = channel::<()>();
    workers.spawn(WorkerId(0), move || async move {
        rx.recv().ok();
    });
    eventually(|| workers.heartbeats()[0].1 > Duration::from_millis(200));
    drop(tx);
    eventually(|| workers.heartbeats()[0].1 < Duration::from_millis(100));
    workers.shutdown(soon());
}

#[test]
fn a_panic_in_a_task_ends_only_that_task() {
    let workers = workers(1);
    workers.spawn(WorkerId(0), || async { panic!("on purpose") });
    eventually(|| workers.live() == 0);
    let (tx, rx) = channel();
    workers.spawn(WorkerId(0), move || async move { tx.send(()).unwrap() });
    rx.recv_timeout(PATIENCE).unwrap();
    workers.shutdown(soon());
}

#[test]
fn shutdown_waits_for_tasks_and_drops_those_that_outlive_the_deadline() {
    let workers = workers(1);
    let (tx, rx) = channel();
    let finished = tx.clone();
    workers.spawn(WorkerId(0), move || async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        finished.send("finished").unwrap();
    });
    let held = Arc::new(());
    let observed = Arc::downgrade(&held);
    workers.spawn(WorkerId(0), move || async move {
        std::future::pending::<()>().await;
        drop(held);
    });
    let again = workers.clone();
    workers.shutdown(Instant::now() + Duration::from_millis(300));
    assert_eq!(rx.try_recv().unwrap(), "finished");
    assert!(observed.upgrade().is_none(), "a dropped task must let go of what it holds");
    again.spawn(WorkerId(0), move || async move { tx.send("too late").unwrap() });
    assert_eq!(again.live(), 0);
    assert!(rx.try_recv().is_err());
}

/// Polls that a task of a tenant has had.
type Polls = Arc<AtomicUsize>;

/// A tenant of `workers` whose tasks have turns of a millisecond, and what is told of it.
fn tenant(workers: &Workers, turn: Duration) -> (Arc<Tenant>, std::sync::mpsc::Receiver<Usage>) {
    let (tx, rx) = channel();
    let tenant = Tenant::new(Limits { workers: 1, turn }, workers.limit(), move |told| {
        let _ = tx.send(told);
    });
    (tenant, rx)
}

/// A task that always has something to do: each poll takes `work`.
fn busy(workers: &Workers, tenant: &Arc<Tenant>, work: Duration, stop: &Arc<AtomicBool>) -> Polls {
    let polls = Polls::default();
    let (counted, stop) = (polls.clone(), stop.clone());
    workers.spawn_for(tenant.clone(), WorkerId(0), move || async move {
        // What it spawns is its tenant's, too.
        let task = tokio::task::spawn_local(inherit(async move {
            while !stop.load(Ordering::Relaxed) {
                counted.fetch_add(1, Ordering::Relaxed);
                let end = Instant::now() + work;
                while Instant::now() < end {}
                ready_again().await;
            }
        }));
        task.await.unwrap();
    });
    polls
}

/// Goes to the end of the queue. `yield_now` would wait until events have been looked for.
async fn ready_again() {
    let mut again = false;
    std::future::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        if std::mem::replace(&mut again, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// How often a quiet tenant's task runs for each time that one of eight of a loud tenant runs.
fn quiet_beside_loud(turn: Duration) -> f64 {
    let workers = workers(1);
    let stop = Arc::new(AtomicBool::new(false));
    let ((loud, heard), (quiet, _)) = (tenant(&workers, turn), tenant(&workers, turn));
    let of_loud: Vec<_> =
        (0..8).map(|_| busy(&workers, &loud, Duration::from_millis(2), &stop)).collect();
    let of_quiet = busy(&workers, &quiet, Duration::ZERO, &stop);
    eventually(|| of_loud.iter().all(|polls| polls.load(Ordering::Relaxed) > 20));
    stop.store(true, Ordering::Relaxed);
    eventually(|| workers.live() == 0);
    workers.shutdown(soon());
    drop(loud);
    let told: Vec<Usage> = heard.try_iter().collect();
    assert!(told.iter().any(|told| matches!(told, Usage::Ran(_))), "{told:?}");
    let overs = told.iter().any(|told| matches!(told, Usage::TurnsOver(_)));
    assert_eq!(overs, !turn.is_zero(), "{told:?}");
    let loud: usize = of_loud.iter().map(|polls| polls.load(Ordering::Relaxed)).sum();
    of_quiet.load(Ordering::Relaxed) as f64 / loud as f64
}

#[test]
fn a_tenant_with_many_busy_tasks_gets_no_more_turns_than_one_with_a_single_task() {
    let with = quiet_beside_loud(Duration::from_millis(1));
    assert!(with > 0.7, "one turn each: {with}");
    let without = quiet_beside_loud(Duration::ZERO);
    assert!(without < 0.3, "as often as every other task: {without}");
}

#[test]
fn a_tenant_that_is_alone_never_waits() {
    let workers = workers(1);
    let stop = Arc::new(AtomicBool::new(false));
    let (alone, heard) = tenant(&workers, Duration::from_millis(1));
    let polls = busy(&workers, &alone, Duration::from_millis(2), &stop);
    eventually(|| polls.load(Ordering::Relaxed) > 20);
    stop.store(true, Ordering::Relaxed);
    eventually(|| workers.live() == 0);
    workers.shutdown(soon());
    assert!(!heard.try_iter().any(|told| matches!(told, Usage::TurnsOver(_))));
}

#[test]
fn a_second_tenant_gets_a_worker_of_its_own() {
    let workers = workers(3);
    let limits = Limits { workers: 1, turn: Duration::ZERO };
    let tenants: Vec<_> = (0..4).map(|_| Tenant::new(limits, workers.limit(), |_| {})).collect();
    let homes =
        || tenants.iter().map(|tenant| workers.near(tenant).home.index()).collect::<Vec<_>>();
    assert_eq!(homes(), [0, 1, 0, 1], "a third worker joins under load only");
    assert_eq!(homes(), [0, 1, 0, 1], "and they stay");
    drop(tenants.into_iter().next());
    let settled = |workers: &Workers| {
        workers.pool.active().map(|(_, seat)| seat.load().settled).collect::<Vec<_>>()
    };
    assert_eq!(settled(&workers), [0, 0]);
    workers.shutdown(soon());
}

#[test]
fn tasks_that_end_or_are_dropped_while_set_aside_hold_up_nobody() {
    let workers = workers(1);
    let (tx, rx) = channel();
    let turn = Duration::from_micros(50);
    for seed in 0..3 {
        let (tenant, _) = tenant(&workers, turn);
        let tx = tx.clone();
        workers.spawn_for(tenant, WorkerId(0), move || async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut tasks = Vec::new();
            for _ in 0..500 {
                let (polls, work) = (random.u32(1..20), Duration::from_micros(random.u64(0..40)));
                tasks.push(tokio::task::spawn_local(inherit(async move {
                    for _ in 0..polls {
                        let end = Instant::now() + work;
                        while Instant::now() < end {}
                        ready_again().await;
                    }
                })));
                if random.bool() {
                    tasks.swap_remove(random.usize(..tasks.len())).abort();
                    ready_again().await;
                }
            }
            for task in tasks {
                task.await.unwrap();
            }
            tx.send(()).unwrap();
        });
    }
    for _ in 0..3 {
        rx.recv_timeout(PATIENCE).unwrap();
    }
    eventually(|| workers.live() == 0);
    workers.shutdown(soon());
}
