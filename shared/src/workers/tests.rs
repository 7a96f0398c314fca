use std::rc::Rc;
use std::sync::mpsc::channel;

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
