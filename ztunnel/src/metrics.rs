//! The metrics and the access log of the node proxy, from the life of a connection.
//!
//! Invariants: labels are resolved once per connection; bytes are counted in place and reach the
//! metrics about every second; each connection ends in exactly one line, also when it is dropped.
//! Not here: names and text (`shared::telemetry`), causes (`outcome`).
//! Source: spec L4 §11.3 to §11.5.

mod labels;
mod lines;

pub use lines::refuse;

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use shared::headers::{Baggage, TraceParent};
use shared::identity::SpiffeId;
use shared::mesh::{Service, Workload};
use shared::telemetry::access::Direction;
use shared::telemetry::traffic::{self, Reporter, ResponseFlag, Security};
use tokio::time::Instant;

use crate::copy::Counters;
use crate::node::OnWorker;
use crate::node::live::Entry;
use crate::outcome::Outcome;

/// What is told about a connection. It shares the values of the mesh, so that no text is copied.
#[derive(Debug, Clone)]
pub struct Story {
    /// From whose point of view.
    pub direction: Direction,
    /// The address that opened it.
    pub source_addr: SocketAddr,
    /// The workload that opened it, if the mesh has it.
    pub source: Option<Arc<Workload>>,
    /// What it says of itself, for a workload of another network.
    pub source_baggage: Option<Box<Baggage>>,
    /// Who it proved to be. Only where the hop is mutual TLS.
    pub source_identity: Option<SpiffeId>,
    /// Where it was meant to go.
    pub original: SocketAddr,
    /// What was really dialled; inbound: the address that the peer reached.
    pub destination_addr: Option<SocketAddr>,
    /// The CONNECT target.
    pub authority: Option<Box<str>>,
    /// The workload that serves it, if the mesh has it.
    pub destination: Option<Arc<Workload>>,
    /// The service that was meant.
    pub service: Option<Arc<Service>>,
    /// Whether the hop is mutual TLS.
    pub security: Security,
    /// The id that both ends log.
    pub trace: Option<TraceParent>,
    /// It goes from one pod of this process to another without a tunnel between them.
    pub handover: bool,
}

/// An open connection as metrics, log and dump see it.
#[derive(Debug)]
pub struct Live {
    story: Story,
    started: Instant,
    counters: Counters,
    /// The other end of the same copy, whose counters move instead.
    counted: Option<Rc<Self>>,
    /// What of the counters has reached the metrics: forward and back.
    reported: Cell<(u64, u64)>,
    /// None once it has ended.
    traffic: RefCell<Option<traffic::Connection>>,
}

/// Tells one connection. Dropped without [`close`](Self::close) it tells that it was drained.
#[must_use = "a connection is told until it is closed"]
pub struct ConnectionLog {
    worker: Rc<OnWorker>,
    key: usize,
    live: Rc<Live>,
    ended: bool,
    _socket: traffic::OpenSocket,
}

impl ConnectionLog {
    /// The connection is established.
    pub fn open(worker: &Rc<OnWorker>, story: Story) -> Self {
        Self::start(worker, story, None)
    }

    /// The connection is established, and `far` tells the other end of the same copy: what moves the
    /// counters of one moves those of the other.
    pub fn open_beside(worker: &Rc<OnWorker>, story: Story, far: &Self) -> Self {
        Self::start(worker, story, Some(Rc::clone(&far.live)))
    }

    fn start(worker: &Rc<OnWorker>, story: Story, counted: Option<Rc<Live>>) -> Self {
        let reporter = match story.direction {
            Direction::Outbound => Reporter::Source,
            Direction::Inbound => Reporter::Destination,
        };
        let traffic = labels::with(&story, |labels| worker.traffic.open(labels));
        let live = Rc::new(Live {
            story,
            started: Instant::now(),
            counters: Counters::default(),
            counted,
            reported: Cell::default(),
            traffic: RefCell::new(Some(traffic)),
        });
        let key = worker.live.insert(Rc::clone(&live));
        lines::opened(worker, &live);
        let socket = worker.traffic.socket(reporter);
        Self { worker: Rc::clone(worker), key, live, ended: false, _socket: socket }
    }

    /// The counters that the copy moves.
    pub fn counters(&self) -> &Counters {
        self.live.counters()
    }

    /// The connection has ended, well or with an error.
    pub fn close(mut self, ended: Result<(), (Outcome, &dyn Display)>) {
        self.end(ended);
    }

    fn end(&mut self, ended: Result<(), (Outcome, &dyn Display)>) {
        self.ended = true;
        self.live.report();
        let flag = match &ended {
            Ok(()) => ResponseFlag::None,
            Err((outcome, _)) => outcome.flag(),
        };
        lines::ended(&self.worker, &self.live, ended);
        if let Some(traffic) = self.live.traffic.take() {
            traffic.close(flag);
        }
        self.worker.live.remove(self.key);
    }
}

impl Drop for ConnectionLog {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Err((Outcome::DRAINED, &"connection closed due to connection drain")));
        }
    }
}

impl Live {
    pub(crate) fn counters(&self) -> &Counters {
        self.counted.as_ref().map_or(&self.counters, |far| &far.counters)
    }

    /// Hands the bytes since the last call to the metrics.
    pub(crate) fn report(&self) {
        let Counters { forward, back } = self.counters();
        let (forward, back) = (forward.get(), back.get());
        let (told_forward, told_back) = self.reported.replace((forward, back));
        if let Some(traffic) = &*self.traffic.borrow() {
            traffic.received(forward - told_forward);
            traffic.sent(back - told_back);
        }
    }

    pub(crate) fn entry(&self) -> Entry {
        let Story { direction, source, destination, .. } = &self.story;
        let local = match direction {
            Direction::Outbound => source,
            Direction::Inbound => destination,
        };
        let actual = self.story.destination_addr.unwrap_or(self.story.original);
        Entry {
            pod: local
                .as_ref()
                .map_or_else(String::new, |local| format!("{}/{}", local.namespace(), local.name)),
            direction: *direction,
            src: self.story.source_addr.to_string(),
            original_dst: match &self.story.authority {
                Some(authority) if *direction == Direction::Inbound => authority.to_string(),
                _ => self.story.original.to_string(),
            },
            actual_dst: actual.to_string(),
            protocol: match &self.story {
                Story { handover: true, .. } => "HANDOVER",
                Story { authority: Some(_), .. } => "HBONE",
                _ => "TCP",
            },
            received_bytes: self.counters().forward.get(),
            sent_bytes: self.counters().back.get(),
        }
    }
}

impl Story {
    /// A connection that could not be established although its destination was known: counted and
    /// told as failed.
    pub fn fail(&self, worker: &OnWorker, outcome: Outcome, error: &dyn Display) {
        labels::with(self, |labels| worker.traffic.failed(labels, outcome.flag()));
        lines::failed(worker, self, outcome, error);
    }
}
