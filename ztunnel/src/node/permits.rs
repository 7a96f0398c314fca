//! Permits are watched until the end of their connections.
//!
//! Invariants: a connection is registered in the same turn in which it is decided, so that no change
//! can fall between; each worker decides only its own connections again, with the workload as
//! it is now; exactly those that are now denied are told.
//! Source: spec L4 §4.7, without its gap (a change of the workload's own list of policies counts).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use shared::authz::{self, Facts, Guarded, Inside, Permit};
use shared::identity::SpiffeId;
use shared::mesh::{Mesh, Uid, Workload};
use slab::Slab;

use crate::node::OnWorker;
use crate::outbound::resolve;

/// Why a connection may not reach the application.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// A policy forbids it.
    #[error("connection closed due to policy rejection: {0}")]
    Policy(#[source] authz::Denial),
    /// The workload accepts only its waypoint, and this is not it.
    #[error("connection closed due to policy rejection: {ONLY_WAYPOINT}")]
    NotThroughWaypoint,
}

const ONLY_WAYPOINT: &str = "only the workload's waypoint may connect";

impl Denial {
    /// The reason alone, for texts that say themselves what happened.
    pub fn why(&self) -> &dyn fmt::Display {
        match self {
            Self::Policy(denial) => denial,
            Self::NotThroughWaypoint => &ONLY_WAYPOINT,
        }
    }
}

/// What decides over an inbound connection.
#[derive(Debug, Clone)]
pub struct Case {
    /// The workload, as of the last decision.
    pub workload: Arc<Workload>,
    /// Who the peer proved to be; none for plaintext.
    pub peer: Option<SpiffeId>,
    /// Address of the TCP peer.
    pub source_ip: IpAddr,
    /// The application's socket.
    pub destination: SocketAddr,
}

impl Case {
    /// Decides over the connection as things are in `mesh`.
    ///
    /// # Errors
    /// The reason against it.
    pub fn decide(&self, mesh: &Mesh) -> Result<Permit, Denial> {
        let facts = Facts {
            guarded: Guarded::Workload(&self.workload),
            peer: self.peer.as_ref(),
            source_ip: self.source_ip,
            destination_addr: self.destination,
            inside: Inside::Unseen,
        };
        let permit = authz::decide(mesh, &facts).map_err(Denial::Policy)?;
        if self.workload.require_waypoint && !self.comes_through_waypoint(mesh) {
            return Err(Denial::NotThroughWaypoint);
        }
        Ok(permit)
    }

    /// The peer has proved to be an instance of a waypoint that is bound to the workload or to one
    /// of its services. The address alone proves nothing; it only finds the workload to compare.
    fn comes_through_waypoint(&self, mesh: &Mesh) -> bool {
        let Some(peer) = &self.peer else { return false };
        let Some(source) = mesh.workload_by_addr(&self.workload.network, self.source_ip) else {
            return false;
        };
        source.identity == *peer && resolve::is_waypoint_of(mesh, source, &self.workload)
    }
}

/// The inbound connections of a worker whose permits are watched.
#[derive(Default)]
pub struct Table {
    watched: Rc<RefCell<Slab<Rc<Watched>>>>,
}

struct Watched {
    case: RefCell<Case>,
    revoked: RefCell<Option<Denial>>,
    waker: Cell<Option<Waker>>,
}

/// A permit under watch, as long as this lives.
#[must_use = "the permit is watched only while this is held"]
pub struct Watch {
    table: Rc<RefCell<Slab<Rc<Watched>>>>,
    key: usize,
    watched: Rc<Watched>,
}

impl Table {
    /// Decides over `case` and watches the permit from then on.
    ///
    /// # Errors
    /// The reason against it; then nothing is watched.
    pub fn admit(&self, mesh: &Mesh, case: Case) -> Result<(Permit, Watch), Denial> {
        let permit = case.decide(mesh)?;
        let watched = Rc::new(Watched {
            case: RefCell::new(case),
            revoked: RefCell::default(),
            waker: Cell::default(),
        });
        let key = self.watched.borrow_mut().insert(Rc::clone(&watched));
        Ok((permit, Watch { table: Rc::clone(&self.watched), key, watched }))
    }

    /// How many permits are watched.
    pub fn len(&self) -> usize {
        self.watched.borrow().len()
    }

    /// Whether none is watched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Decides again over the connections to workloads that changed, or over all.
    fn decide_again(&self, mesh: &Mesh, all: bool) {
        // Connections to one workload mostly follow each other.
        let mut found: Option<(Uid, Option<Arc<Workload>>)> = None;
        for (_, watched) in self.watched.borrow().iter() {
            let mut case = watched.case.borrow_mut();
            let uid = &case.workload.uid;
            if found.as_ref().is_none_or(|(known, _)| known != uid) {
                found = Some((uid.clone(), mesh.workload(uid).cloned()));
            }
            // A workload that is gone is judged by what was last known of it.
            let current = found.as_ref().and_then(|(_, workload)| workload.as_ref());
            let changed = current.is_some_and(|current| !Arc::ptr_eq(current, &case.workload));
            if let Some(current) = current.filter(|_| changed) {
                case.workload = Arc::clone(current);
            }
            if (changed || all)
                && let Err(denial) = case.decide(mesh)
            {
                watched.revoke(denial);
            }
        }
    }
}

impl Watched {
    fn revoke(&self, denial: Denial) {
        self.revoked.borrow_mut().get_or_insert(denial);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Watch {
    /// Ends when the connection is no longer allowed.
    ///
    /// # Cancel safety
    /// Safe: the answer is kept.
    pub async fn revoked(&self) -> Denial {
        poll_fn(|cx| self.poll_revoked(cx)).await
    }

    /// Ready when the connection is no longer allowed, and again whenever it is asked after that.
    pub fn poll_revoked(&self, cx: &Context<'_>) -> Poll<Denial> {
        match &*self.watched.revoked.borrow() {
            Some(denial) => Poll::Ready(denial.clone()),
            None => {
                self.watched.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.table.borrow_mut().try_remove(self.key);
    }
}

/// Decides again whenever the mesh changes, as long as the worker's part lives.
pub(super) async fn keep_deciding(part: Weak<OnWorker>) {
    let Some(mut changed) = part.upgrade().map(|part| part.node.mesh.changed()) else { return };
    let mut policies = 0;
    while changed.changed().await.is_ok() {
        let Some(part) = part.upgrade() else { return };
        let mesh = part.node.mesh.load();
        let all = mesh.policy_generation() != policies;
        policies = mesh.policy_generation();
        part.permits.decide_again(&mesh, all);
    }
}
