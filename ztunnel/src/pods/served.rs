//! The pods that are served now, for connections from one of them to another.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use shared::mesh::Uid;

use crate::pods::Pod;

/// The pods whose listeners are up, by their workload. Cheap to clone; asking takes no lock.
#[derive(Debug, Clone, Default)]
pub struct Served(Arc<ArcSwap<HashMap<Uid, Arc<Pod>>>>);

impl Served {
    /// The pod of this workload, if this process serves it.
    pub fn find(&self, uid: &Uid) -> Option<Arc<Pod>> {
        self.0.load().get(uid).map(Arc::clone)
    }

    /// From now on these are served, and no others.
    pub fn publish(&self, pods: impl IntoIterator<Item = Arc<Pod>>) {
        let pods = pods.into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
        self.0.store(Arc::new(pods));
    }
}
