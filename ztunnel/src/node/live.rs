//! The connections that are open on a worker, for metrics and `/config_dump`.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use shared::telemetry::access::Direction;
use shared::workers::Workers;
use slab::Slab;
use tokio::sync::oneshot;

use crate::metrics::Live;
use crate::node::Node;

/// The open connections of a worker.
#[derive(Default)]
pub struct Table {
    open: RefCell<Slab<Rc<Live>>>,
}

/// One connection for `/config_dump`.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Namespace and name of the local pod.
    pub pod: String,
    /// From whose point of view.
    pub direction: Direction,
    /// Who opened it.
    pub src: String,
    /// Where it was meant to go: the original address or the CONNECT target.
    pub original_dst: String,
    /// What was dialled.
    pub actual_dst: String,
    /// `HBONE` or `TCP`, or `HANDOVER` where no tunnel is between two pods of this process.
    pub protocol: &'static str,
    /// Bytes so far from the side that opened it.
    pub received_bytes: u64,
    /// Bytes so far towards the side that opened it.
    pub sent_bytes: u64,
}

impl Table {
    /// Adds a connection until the key is given back.
    pub(crate) fn insert(&self, live: Rc<Live>) -> usize {
        self.open.borrow_mut().insert(live)
    }

    pub(crate) fn remove(&self, key: usize) {
        self.open.borrow_mut().try_remove(key);
    }

    /// Hands the bytes of lasting connections to the metrics.
    pub(crate) fn report(&self) {
        for (_, live) in self.open.borrow().iter() {
            live.report();
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, for people.
    pub fn entries(&self) -> Vec<Entry> {
        self.open.borrow().iter().map(|(_, live)| live.entry()).collect()
    }
}

impl Node {
    /// The open connections of all workers. Asks each of them once, without stopping it.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn connections(self: &Arc<Self>, workers: &Workers) -> Vec<Entry> {
        let mut answers = Vec::new();
        for worker in workers.activity() {
            let (reply, answer) = oneshot::channel();
            let node = Arc::clone(self);
            workers.spawn(worker.id, move || async move {
                // Nobody listens any more: then nobody needs the answer.
                let _ = reply.send(node.on_worker().live.entries());
            });
            answers.push(answer);
        }
        let mut all = Vec::new();
        for answer in answers {
            all.extend(answer.await.unwrap_or_default());
        }
        all
    }
}
