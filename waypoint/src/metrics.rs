//! The metrics and the access log of the waypoint, from the stories of requests and connections.
//!
//! Not here: names and text (`shared::telemetry`), causes (`outcome`).
//! Source: spec L7 §5.1, §5.3.

mod faults;
mod repetitions;

use std::fmt::Display;
use std::net::SocketAddr;

use shared::headers::Baggage;
use shared::mesh::{Service, Workload};
use shared::telemetry::access::{Bytes, Direction, End, Failure, Record, RequestRecord, Side};
use shared::telemetry::requests::{Labels, Measured};
use shared::telemetry::traffic::{self, Party, Security};

pub use self::faults::{FaultKind, Faults};
pub use self::repetitions::{Repetition, Repetitions};

use crate::node::OnWorker;
use crate::outcome::Outcome;
use crate::request::Story;
use crate::tunnel::Client;

/// Counts and tells a request that is over.
pub(crate) fn told(story: &Story) {
    let client = &story.client;
    let worker = &client.worker;
    let measured = Measured {
        duration: story.started.elapsed(),
        request_bytes: story.received.bytes(),
        response_bytes: story.response_bytes,
    };
    let flag = story.flags();
    let flag = flag.as_deref();
    let endpoint = story.endpoint.as_ref();
    let code = story.status.to_string();
    let labels = Labels {
        source: Party { principal: &client.identity, ..source(client) },
        destination: Party {
            principal: endpoint.map_or("", |endpoint| &endpoint.identity),
            ..endpoint.map(|endpoint| of_workload(&endpoint.workload)).unwrap_or_default()
        },
        service: service(story.service.as_deref()),
        security: Security::MutualTls,
        protocol: if story.is_grpc { "grpc" } else { "http" },
        code: &code,
        grpc_status: story.grpc_status.as_deref().unwrap_or_default(),
        flags: flag.unwrap_or("-"),
        route: story.route.as_deref().unwrap_or_default(),
    };
    worker.requests.count(&labels, measured);
    let text = |value: &Option<http::HeaderValue>| {
        value.as_ref().and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let connection = client.trace.map(|trace| trace.trace_id().to_string());
    worker.node.access.request(&RequestRecord {
        source: source_side(client),
        destination: endpoint.map_or_else(Side::default, |endpoint| Side {
            address: Some(endpoint.address),
            identity: endpoint.tunnel.then_some(&*endpoint.identity),
            ..side(&endpoint.workload)
        }),
        service: story.service.as_ref().map(|service| &*service.key.hostname),
        method: story.method.as_str(),
        path: &story.path,
        protocol: &format_args!("{:?}", story.version),
        host: text(&story.host).as_deref(),
        status: story.status,
        flags: flag,
        route: story.route.as_deref(),
        request_id: text(&story.request_id).as_deref(),
        audited: story.audited.as_deref(),
        attempts: story.attempts,
        bytes: Bytes { sent: measured.response_bytes, received: measured.request_bytes },
        duration: measured.duration,
        connection: connection.as_deref(),
        failure: story
            .cause()
            .as_ref()
            .map(|(outcome, error)| Failure { cause: outcome.code(), error }),
    });
}

/// Tells that a tunnel was turned away.
pub(crate) fn refuse(
    worker: &OnWorker,
    (from, to): (SocketAddr, SocketAddr),
    outcome: Outcome,
    error: &dyn Display,
) {
    let side = |address| Side { address: Some(address), ..Side::default() };
    worker.node.access.write(&Record {
        direction: Direction::Inbound,
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

/// Tells that a connection ended early for a reason that is no request's: the client broke the rules
/// of its version of HTTP, or what became of it is no longer allowed.
pub(crate) fn ended(client: &Client, outcome: Outcome, error: &dyn Display) {
    let connection = client.trace.map(|trace| trace.trace_id().to_string());
    client.worker.node.access.write(&Record {
        direction: Direction::Inbound,
        source: source_side(client),
        destination: Side::default(),
        hbone_address: Some(&client.authority),
        service: client.target.service().map(|service| &*service.key.hostname),
        bytes: None,
        duration: None,
        connection: connection.as_deref(),
        handover: false,
        end: End::Refused(Failure { cause: outcome.code(), error }),
    });
}

/// The labels of a connection that is not HTTP.
pub(crate) fn with_labels<T>(
    client: &Client,
    endpoint: Option<&Workload>,
    meant: Option<&Service>,
    use_them: impl FnOnce(&traffic::Labels<'_>) -> T,
) -> T {
    let destination_principal = endpoint.map(|one| one.identity.to_string()).unwrap_or_default();
    use_them(&traffic::Labels {
        reporter: traffic::Reporter::Waypoint,
        source: Party { principal: &client.identity, ..source(client) },
        destination: Party {
            principal: &destination_principal,
            ..endpoint.map(of_workload).unwrap_or_default()
        },
        service: service(meant),
        security: Security::MutualTls,
    })
}

pub(crate) fn source_side(client: &Client) -> Side<'_> {
    let said = match &client.source {
        Some(workload) => side(workload),
        None => Side {
            workload: client.baggage.workload.as_deref(),
            namespace: client.baggage.namespace.as_deref(),
            cluster: client.baggage.cluster.as_deref(),
            ..Side::default()
        },
    };
    Side { address: Some(client.address), identity: Some(&client.identity), ..said }
}

pub(crate) fn side(workload: &Workload) -> Side<'_> {
    Side {
        workload: Some(&workload.name),
        namespace: Some(workload.namespace()),
        cluster: Some(&workload.cluster_id),
        ..Side::default()
    }
}

fn source(client: &Client) -> Party<'_> {
    match &client.source {
        Some(workload) => of_workload(workload),
        None => of_baggage(&client.baggage),
    }
}

fn service(service: Option<&Service>) -> traffic::Service<'_> {
    service.map_or_else(traffic::Service::default, |service| traffic::Service {
        host: &service.key.hostname,
        namespace: &service.key.namespace,
        name: &service.name,
    })
}

fn of_workload(workload: &Workload) -> Party<'_> {
    Party {
        workload: &workload.workload_name,
        namespace: workload.namespace(),
        canonical_service: &workload.canonical_name,
        canonical_revision: &workload.canonical_revision,
        principal: "",
        cluster: &workload.cluster_id,
        region: &workload.locality.region,
        zone: &workload.locality.zone,
    }
}

fn of_baggage(baggage: &Baggage) -> Party<'_> {
    fn text(value: &Option<Box<str>>) -> &str {
        value.as_deref().unwrap_or_default()
    }
    Party {
        workload: text(&baggage.workload),
        namespace: text(&baggage.namespace),
        canonical_service: text(&baggage.service),
        canonical_revision: text(&baggage.version),
        principal: "",
        cluster: text(&baggage.cluster),
        region: text(&baggage.region),
        zone: text(&baggage.zone),
    }
}
