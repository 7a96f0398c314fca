//! The allocator of the shipped programs: mimalloc, told to give memory back.
//!
//! Invariants: pages that stay empty for a second go back to the system, also from a thread that is
//! idle; no huge pages. Left as it is, an idle worker would keep the memory of its busiest moment:
//! mimalloc looks for empty pages only while something allocates. Giving them back at once would
//! cost a busy worker a page fault for each buffer: a fifth of a waypoint's CPU when measured.

use std::ffi::c_long;
use std::time::Duration;

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};

use crate::workers::Workers;

/// What `#[global_allocator]` names.
pub use mimalloc::MiMalloc as Allocator;

/// `mi_option_purge_delay` of mimalloc's header, which the crate does not name: milliseconds, of
/// which mimalloc makes ten times as many.
const PURGE_DELAY: mi_option_t = 15;

/// How long a page stays empty before it is given back, and how often a thread looks.
const REST: Duration = Duration::from_millis(REST_MILLIS as u64);
const REST_MILLIS: c_long = 1_000;

/// Sets how long empty pages are kept. For the first line of `main`.
#[expect(unsafe_code, reason = "the crate has no safe call for its options")]
pub fn release_later() {
    // SAFETY: sets one number in the allocator's table of options; any thread may, at any time.
    unsafe { mi_option_set(PURGE_DELAY, REST_MILLIS / 10) }
}

/// Gives back what has been empty long enough, this thread's first.
#[expect(unsafe_code, reason = "the crate has no safe call for this")]
pub fn release() {
    // SAFETY: touches only memory that nothing points to; any thread may, at any time.
    unsafe { mi_collect(false) }
}

/// Calls [`release`] on every worker and on the control thread, as long as they live. Call it inside
/// the control runtime.
pub fn release_regularly(workers: &Workers) {
    async fn regularly() {
        loop {
            tokio::time::sleep(REST).await;
            release();
        }
    }
    workers.each(|_| drop(tokio::task::spawn_local(regularly())));
    tokio::spawn(regularly());
}
