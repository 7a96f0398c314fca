//! The tunnels that pods opened: one pool per pod and worker, never shared between pods.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use shared::hbone::Pool;
use shared::identity::SpiffeId;
use shared::mesh::Uid;
use shared::tls::PeerId;

use crate::node::Config;
use crate::outbound::dial;
use crate::pods::Pod;

/// One key, one kind of connection: who calls, who may answer in which order, and where.
/// The pod is the pool itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) source: SpiffeId,
    pub(crate) expected: Vec<SpiffeId>,
    pub(crate) address: SocketAddr,
}

pub(crate) type TunnelPool = Pool<Key, PeerId, dial::Error>;

#[derive(Default)]
pub(super) struct Pools {
    by_pod: Rc<RefCell<HashMap<Uid, TunnelPool>>>,
}

impl Pools {
    pub(super) fn of(&self, pod: &Arc<Pod>, config: &Config) -> TunnelPool {
        if let Some(pool) = self.by_pod.borrow().get(&pod.uid) {
            return pool.clone();
        }
        let pool =
            TunnelPool::with_idle_timeout(pod.tunnel(&config.tunnel_client), config.tunnel_idle);
        self.by_pod.borrow_mut().insert(pod.uid.clone(), pool.clone());
        let (by_pod, uid, forced) = (Rc::clone(&self.by_pod), pod.uid.clone(), pod.drain.forced());
        // A pod that returns under the same id is another pod: its tunnels are its own.
        tokio::task::spawn_local(async move {
            forced.await;
            if let Some(pool) = by_pod.borrow_mut().remove(&uid) {
                pool.drain();
            }
        });
        pool
    }
}
