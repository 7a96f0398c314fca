//! The lines of the access log, from the story of a connection.

use std::fmt::Display;
use std::net::SocketAddr;

use shared::identity::SpiffeId;
use shared::mesh::Workload;
use shared::telemetry::access::{Bytes, Direction, End, Failure, Record, Side};
use shared::telemetry::traffic::Security;

use crate::metrics::{Live, Story};
use crate::node::OnWorker;
use crate::outcome::Outcome;

pub(super) fn opened(worker: &OnWorker, live: &Live) {
    if tracing::enabled!(target: "access", tracing::Level::DEBUG) {
        tell(worker, &live.story, Some(live), End::Opened);
    }
}

pub(super) fn ended(worker: &OnWorker, live: &Live, ended: Result<(), (Outcome, &dyn Display)>) {
    match ended {
        Ok(()) => tell(worker, &live.story, Some(live), End::Complete),
        Err((outcome, error)) => {
            let failure = Failure { cause: outcome.code(), error };
            tell(worker, &live.story, Some(live), End::Failed(failure));
        }
    }
}

pub(super) fn failed(worker: &OnWorker, story: &Story, outcome: Outcome, error: &dyn Display) {
    let failure = Failure { cause: outcome.code(), error };
    tell(worker, story, None, End::Failed(failure));
}

/// Tells that a connection was turned away before anything was known about it.
pub fn refuse(
    worker: &OnWorker,
    direction: Direction,
    (from, to): (SocketAddr, SocketAddr),
    outcome: Outcome,
    error: &dyn Display,
) {
    let side = |address| Side { address: Some(address), ..Side::default() };
    worker.node.access.write(&Record {
        direction,
        source: side(from),
        destination: side(to),
        hbone_address: None,
        service: None,
        bytes: None,
        duration: None,
        connection: None,
        handover: false,
        end: End::Refused(Failure { cause: outcome.code(), error }),
    });
}

fn tell(worker: &OnWorker, story: &Story, live: Option<&Live>, end: End<'_>) {
    let proved = |id: Option<&SpiffeId>| {
        id.filter(|_| story.security == Security::MutualTls).map(ToString::to_string)
    };
    let destination = story.destination.as_deref();
    let source_identity = proved(story.source_identity.as_ref());
    let destination_identity = proved(destination.map(|workload| &workload.identity));
    let connection = story.trace.map(|trace| trace.trace_id().to_string());
    worker.node.access.write(&Record {
        direction: story.direction,
        source: Side { identity: source_identity.as_deref(), ..source(story) },
        destination: Side {
            address: Some(story.destination_addr.unwrap_or(story.original)),
            identity: destination_identity.as_deref(),
            ..destination.map(side).unwrap_or_default()
        },
        hbone_address: story.authority.as_ref().map(|authority| authority as &dyn Display),
        service: story.service.as_ref().map(|service| &*service.key.hostname),
        bytes: live.map(|live| bytes(story.direction, live)),
        duration: live.map(|live| live.started.elapsed()),
        connection: connection.as_deref(),
        handover: story.handover,
        end,
    });
}

fn source(story: &Story) -> Side<'_> {
    let said = match (&story.source, &story.source_baggage) {
        (Some(workload), _) => side(workload),
        (None, Some(baggage)) => Side {
            workload: baggage.workload.as_deref(),
            namespace: baggage.namespace.as_deref(),
            cluster: baggage.cluster.as_deref(),
            ..Side::default()
        },
        (None, None) => Side::default(),
    };
    Side { address: Some(story.source_addr), ..said }
}

fn side(workload: &Workload) -> Side<'_> {
    Side {
        workload: Some(&workload.name),
        namespace: Some(workload.namespace()),
        cluster: Some(&workload.cluster_id),
        ..Side::default()
    }
}

/// From the point of view of the local pod.
fn bytes(direction: Direction, live: &Live) -> Bytes {
    let (forward, back) = (live.counters().forward.get(), live.counters().back.get());
    match direction {
        Direction::Outbound => Bytes { sent: forward, received: back },
        Direction::Inbound => Bytes { sent: back, received: forward },
    }
}
