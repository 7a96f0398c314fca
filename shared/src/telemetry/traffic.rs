//! The `istio_tcp_*` families: what flowed between whom.
//!
//! Invariants: labels are resolved once per connection and cached per worker; on the byte path a
//! counter is a plain number of the worker, added to the shared one about every second and at the end
//! of each connection; an empty label reads `unknown`; label sets that nobody uses any more vanish
//! after they were read once more.
//! Source: Istio's standard metrics, in the order of Istio's ztunnel.

mod families;
mod labels;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{IntGauge, IntGaugeVec, Opts};
use tokio::time::Instant;

pub use self::labels::{Labels, Party, Reporter, ResponseFlag, Security, Service};

use self::families::Families;
use self::labels::Owned;
use super::metrics::{Error, Registry};

/// How often the numbers of a worker become visible while connections last.
pub const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// A worker forgets label sets that it has not used for this long.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Counts the traffic of this process. Cheap to clone; each worker makes its own [`OnWorker`].
#[derive(Clone, Debug)]
pub struct Traffic {
    families: Families,
    open: [IntGauge; 3],
}

impl Traffic {
    /// Registers the families.
    ///
    /// # Errors
    /// They are registered already.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let families = Families::new()?;
        registry.register(families.clone())?;
        let sockets = IntGaugeVec::new(
            Opts::new("istio_tcp_sockets_open", "Open sockets of applications (unstable)."),
            &["reporter"],
        )?;
        let open = [Reporter::Source, Reporter::Destination, Reporter::Waypoint]
            .map(|reporter| sockets.with_label_values(&[reporter.as_str()]));
        registry.register(sockets)?;
        Ok(Self { families, open })
    }

    /// The side that a worker counts on. Run [`OnWorker::keep_flushing`] beside it.
    #[must_use]
    pub fn on_worker(&self) -> OnWorker {
        OnWorker { local: Rc::new(Local { traffic: self.clone(), sets: RefCell::default() }) }
    }
}

/// Counters of one label set, shared by all workers.
#[derive(Debug, Default)]
struct Counters {
    opened: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    closed: [AtomicU64; ResponseFlag::ALL.len()],
    failed: [AtomicU64; ResponseFlag::ALL.len()],
}

/// One label set on one worker.
#[derive(Debug)]
struct Set {
    labels: Owned,
    counters: Arc<Counters>,
    received_bytes: Cell<u64>,
    sent_bytes: Cell<u64>,
    used: Cell<Instant>,
}

impl Set {
    fn flush(&self) {
        for (local, shared) in [
            (&self.received_bytes, &self.counters.received_bytes),
            (&self.sent_bytes, &self.counters.sent_bytes),
        ] {
            let bytes = local.take();
            if bytes > 0 {
                shared.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }
}

/// Counts on one worker. Cheap to clone, stays on its thread.
#[derive(Clone, Debug)]
pub struct OnWorker {
    local: Rc<Local>,
}

#[derive(Debug)]
struct Local {
    traffic: Traffic,
    /// By the hash of the labels, because a look-up has only borrowed ones.
    sets: RefCell<HashMap<u64, Vec<Rc<Set>>>>,
}

impl OnWorker {
    /// A connection is established: counts it as opened.
    #[must_use]
    pub fn open(&self, labels: &Labels<'_>) -> Connection {
        let set = self.set(labels);
        set.counters.opened.fetch_add(1, Ordering::Relaxed);
        Connection { set, ended: false }
    }

    /// A connection could not be established: counts it as failed.
    pub fn failed(&self, labels: &Labels<'_>, flag: ResponseFlag) {
        self.set(labels).counters.failed[flag.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an application's socket as open until the guard is dropped.
    pub fn socket(&self, reporter: Reporter) -> OpenSocket {
        let gauge = self.local.traffic.open[reporter as usize].clone();
        gauge.inc();
        OpenSocket(gauge)
    }

    /// Makes the numbers of lasting connections visible. Ends when every other clone is gone.
    pub async fn keep_flushing(self) {
        while Rc::strong_count(&self.local) > 1 {
            tokio::time::sleep(FLUSH_EVERY).await;
            self.flush();
        }
    }

    /// Makes all numbers visible now, and forgets label sets that are out of use.
    pub fn flush(&self) {
        self.local.sets.borrow_mut().retain(|_, sets| {
            sets.retain(|set| {
                set.flush();
                Rc::strong_count(set) > 1 || set.used.get().elapsed() < FORGET_AFTER
            });
            !sets.is_empty()
        });
    }

    fn set(&self, labels: &Labels<'_>) -> Rc<Set> {
        let values = labels.values();
        let hash = labels::hash(&values);
        let mut sets = self.local.sets.borrow_mut();
        let candidates = sets.entry(hash).or_default();
        if let Some(set) = candidates.iter().find(|set| labels::same(&set.labels, &values)) {
            set.used.set(Instant::now());
            return set.clone();
        }
        let labels = labels::owned(&values);
        let set = Rc::new(Set {
            counters: self.local.traffic.families.counters(&labels),
            labels,
            received_bytes: Cell::new(0),
            sent_bytes: Cell::new(0),
            used: Cell::new(Instant::now()),
        });
        candidates.push(set.clone());
        set
    }
}

/// An established connection. Dropped without [`close`](Self::close) it counts as drained.
#[derive(Debug)]
pub struct Connection {
    set: Rc<Set>,
    ended: bool,
}

impl Connection {
    /// Counts bytes that the initiator sent.
    pub fn received(&self, bytes: u64) {
        self.set.received_bytes.set(self.set.received_bytes.get() + bytes);
    }

    /// Counts bytes that the responder sent.
    pub fn sent(&self, bytes: u64) {
        self.set.sent_bytes.set(self.set.sent_bytes.get() + bytes);
    }

    /// The connection ended: counted as closed, and as failed unless the flag says success.
    pub fn close(mut self, flag: ResponseFlag) {
        self.end(flag);
    }

    fn end(&mut self, flag: ResponseFlag) {
        self.ended = true;
        self.set.flush();
        self.set.counters.closed[flag.index()].fetch_add(1, Ordering::Relaxed);
        if flag != ResponseFlag::None {
            self.set.counters.failed[flag.index()].fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.ended {
            self.end(ResponseFlag::Connect);
        }
    }
}

/// An open socket of an application.
#[derive(Debug)]
#[must_use = "the socket counts as open only while this is held"]
pub struct OpenSocket(IntGauge);

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests;
