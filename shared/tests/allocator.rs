//! The allocator in a program of its own, as the proxies have it.

use std::sync::mpsc;
use std::time::Duration;

use shared::allocator::{Allocator, release_later, release_regularly};
use shared::workers::{Config, Workers};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Buffers of a burst, in bytes.
const SIZES: [usize; 4] = [600, 2 << 10, 8 << 10, 16 << 10];

/// Resident memory of this process, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

#[tokio::test]
async fn the_memory_of_a_burst_goes_back_though_the_worker_is_idle_afterwards() {
    release_later();
    let workers = Workers::start(Config { limit: 1, ..Config::default() }).expect("a thread");
    release_regularly(&workers);
    let before = resident();
    let (tell, told) = mpsc::channel();
    workers.spawn(workers.least_loaded(), move || async move {
        let sizes = SIZES.iter().cycle().take(8_000);
        let burst: Vec<Vec<u8>> = sizes.map(|size| vec![1; *size]).collect();
        tell.send(resident()).expect("somebody listens");
        drop(burst);
    });
    let grown = told.recv().expect("the burst was there") - before;
    assert!(grown > 40 << 10, "the burst took {grown} KiB");
    let deadline = Instant::now() + Duration::from_secs(60);
    while resident().saturating_sub(before) >= grown / 4 {
        assert!(Instant::now() < deadline, "{} of {grown} KiB are kept", resident() - before);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
