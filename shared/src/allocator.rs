//! The allocator of the shipped programs: mimalloc, told to give memory back.
//!
//! Invariants: a page that becomes empty goes back to the system at once; no huge pages. Left as it
//! is, an idle worker would keep the memory of its busiest moment: delayed returns happen only while
//! something allocates.

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// What `#[global_allocator]` names.
pub use mimalloc::MiMalloc as Allocator;

/// `mi_option_purge_delay` of mimalloc's header, which the crate does not name.
const PURGE_DELAY: mi_option_t = 15;

/// Makes the allocator give empty pages back at once. For the first line of `main`.
#[expect(unsafe_code, reason = "the crate has no safe call for its options")]
pub fn release_at_once() {
    // SAFETY: sets one number in the allocator's table of options; any thread may, at any time.
    unsafe { mi_option_set(PURGE_DELAY, 0) }
}
