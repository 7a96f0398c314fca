//! An allocator that counts what a thread asks for, and keeps the first places that did.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::fmt;

/// Enough to see where to begin.
const MOST_PLACES: usize = 5;

thread_local! {
    static COUNTS: Cell<bool> = const { Cell::new(false) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static PLACES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The system's allocator, counting on threads that asked for it.
pub(crate) struct Counting;

/// What was counted.
pub(crate) struct Count {
    pub(crate) allocations: usize,
    places: Vec<String>,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in &self.places {
            writeln!(f, "{place}")?;
        }
        write!(f, "{} allocations", self.allocations)
    }
}

/// Counts from now on what this thread allocates.
pub(crate) fn start() {
    ALLOCATIONS.set(0);
    PLACES.take();
    COUNTS.set(true);
}

/// What it has allocated since.
pub(crate) fn stop() -> Count {
    COUNTS.set(false);
    Count { allocations: ALLOCATIONS.get(), places: PLACES.take() }
}

fn count() {
    // Taking a backtrace allocates as well; a thread that ends has no counter any more.
    if COUNTS.try_with(|counts| counts.replace(false)) != Ok(true) {
        return;
    }
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    if ALLOCATIONS.get() <= MOST_PLACES {
        PLACES.with_borrow_mut(|places| places.push(Backtrace::force_capture().to_string()));
    }
    COUNTS.set(true);
}

#[expect(unsafe_code, reason = "an allocator cannot be had otherwise")]
// SAFETY: each call is passed on to the system's allocator as it is; counting takes and gives
// nothing of what is allocated.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`, and `size` is the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
