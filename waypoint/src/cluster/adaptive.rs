//! The adaptive limit of a destination, for all workers.
//!
//! Invariants: a request reads one word, and an answer never waits: one that meets another worker's
//! is left out, since the limit follows the median of many.

use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use shared::mesh::Concurrency;
use tokio::time::Instant;

use crate::cluster::{Gradient, Sample};

/// None until a rule asks for one.
#[derive(Debug, Default)]
pub struct Adaptive {
    state: Mutex<State>,
    /// The limit; 0 is none.
    limit: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    /// The picture of the mesh that it is as wanted by.
    generation: u64,
    gradient: Option<Gradient>,
}

impl Adaptive {
    /// Makes it as the rule of a picture of the mesh wants it; other bounds begin anew. Workers learn of
    /// pictures at different times, and an older one has no say.
    pub fn configure(&self, wanted: Option<Concurrency>, generation: u64, now: Instant) {
        let mut state = self.state.lock();
        if generation < state.generation {
            return;
        }
        state.generation = generation;
        if state.gradient.as_ref().map(Gradient::bounds) != wanted {
            state.gradient = wanted.map(|bounds| Gradient::new(bounds, now));
            self.show(state.gradient.as_ref());
        }
    }

    /// How many requests there may be at a time.
    pub fn limit(&self) -> Option<u32> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|limit| *limit > 0)
    }

    /// Learns from an answer.
    pub fn learn(&self, sample: Sample, now: Instant) {
        let Some(mut state) = self.state.try_lock() else { return };
        let Some(gradient) = &mut state.gradient else { return };
        gradient.learn(sample, now, fastrand::f64());
        self.show(state.gradient.as_ref());
    }

    /// Only under the lock, so that the last one counts.
    fn show(&self, gradient: Option<&Gradient>) {
        self.limit.store(gradient.map_or(0, Gradient::limit), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_newest_picture_of_the_mesh_decides() {
        let (adaptive, now) = (Adaptive::default(), Instant::now());
        assert_eq!(adaptive.limit(), None);
        let wide = Concurrency { least: 3, most: 1_000 };
        adaptive.configure(Some(wide), 7, now);
        assert_eq!(adaptive.limit(), Some(20));
        adaptive.configure(Some(Concurrency { least: 50, most: 60 }), 8, now);
        assert_eq!(adaptive.limit(), Some(50));
        // A worker that is late.
        adaptive.configure(None, 7, now);
        assert_eq!(adaptive.limit(), Some(50));
        adaptive.configure(None, 9, now);
        assert_eq!(adaptive.limit(), None);
    }
}
