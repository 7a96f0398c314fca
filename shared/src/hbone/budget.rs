//! What the windows of many streams may grow by together.
//!
//! Asked only when a window grows or its stream ends, never per read or write.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of window beyond what each stream begins with, shared by all connections of one owner. So
/// readers that stop cannot make a proxy hold more than this, and the first window of each stream.
pub struct Budget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    refused: Box<dyn Fn() + Send + Sync>,
}

impl Budget {
    /// At most `limit_bytes`; `refused` is told whenever a window does not grow because of that.
    pub fn new(limit_bytes: u64, refused: impl Fn() + Send + Sync + 'static) -> Self {
        Self { limit_bytes, used_bytes: AtomicU64::new(0), refused: Box::new(refused) }
    }

    /// Bytes that windows have grown by.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Takes all of `bytes` or nothing.
    pub(super) fn take(&self, bytes: u32) -> bool {
        let within =
            |used: u64| used.checked_add(u64::from(bytes)).filter(|used| *used <= self.limit_bytes);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let taken = self.used_bytes.fetch_update(set, fetch, within).is_ok();
        if !taken {
            (self.refused)();
        }
        taken
    }

    pub(super) fn give_back(&self, bytes: u32) {
        self.used_bytes.fetch_sub(u64::from(bytes), Ordering::Relaxed);
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("limit_bytes", &self.limit_bytes)
            .field("used_bytes", &self.used_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_told() {
        let told = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&told);
        let budget = Budget::new(100, move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert!(budget.take(60));
        assert!(!budget.take(41));
        assert!(budget.take(40));
        budget.give_back(60);
        assert!(budget.take(60));
        assert_eq!((budget.used_bytes(), told.load(Ordering::Relaxed)), (100, 1));
    }
}
