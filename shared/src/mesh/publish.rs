//! One writer publishes snapshots; any number of readers load them without waiting.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::mesh::change::Effect;
use crate::mesh::{Change, Mesh};

/// Makes an empty mesh, with its only writer and a first reader.
pub fn writer() -> (Writer, Reader) {
    let (generation, changed) = watch::channel(0);
    let (policy_generation, policies_changed) = watch::channel(0);
    let current = Arc::new(ArcSwap::from_pointee(Mesh::default()));
    let reader = Reader { current: current.clone(), changed, policies_changed };
    (Writer { mesh: Mesh::default(), current, generation, policy_generation }, reader)
}

/// The only one that changes the mesh.
#[derive(Debug)]
pub struct Writer {
    mesh: Mesh,
    current: Arc<ArcSwap<Mesh>>,
    generation: watch::Sender<u64>,
    policy_generation: watch::Sender<u64>,
}

impl Writer {
    /// Folds all of `changes` into the picture, then publishes once. What was so already costs
    /// nothing, and a batch without effect publishes nothing.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        let effect = changes.into_iter().map(|change| self.mesh.fold(change)).max();
        let effect = effect.unwrap_or(Effect::Nothing);
        if effect == Effect::Nothing {
            return;
        }
        self.mesh.generation += 1;
        if effect == Effect::Decisions {
            self.mesh.policy_generation = self.mesh.generation;
        }
        self.current.store(Arc::new(self.mesh.clone()));
        self.generation.send_replace(self.mesh.generation);
        if effect == Effect::Decisions {
            self.policy_generation.send_replace(self.mesh.policy_generation);
        }
    }

    /// The picture as last published.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }
}

/// Reads the mesh. Cheap to clone; one per worker keeps them apart.
#[derive(Debug, Clone)]
pub struct Reader {
    current: Arc<ArcSwap<Mesh>>,
    changed: watch::Receiver<u64>,
    policies_changed: watch::Receiver<u64>,
}

impl Reader {
    /// The latest snapshot. Load once per connection and keep it.
    pub fn load(&self) -> Arc<Mesh> {
        self.current.load_full()
    }

    /// Wakes at every publish, with its generation.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Wakes when open connections must be decided again.
    pub fn policies_changed(&self) -> watch::Receiver<u64> {
        self.policies_changed.clone()
    }
}
