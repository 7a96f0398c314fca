//! The allocator in a program of its own, as the proxies have it.

use shared::allocator::{Allocator, release_at_once};

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

#[test]
fn the_memory_of_a_burst_goes_back_though_the_thread_is_idle_afterwards() {
    release_at_once();
    let before = resident();
    let burst: Vec<Vec<u8>> = SIZES.iter().cycle().take(8_000).map(|size| vec![1; *size]).collect();
    let grown = resident() - before;
    drop(burst);
    let kept = resident().saturating_sub(before);
    assert!(grown > 40 << 10, "the burst took {grown} KiB");
    assert!(kept < grown / 4, "{kept} of {grown} KiB were kept");
}
