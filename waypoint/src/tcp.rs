//! Connections that are not HTTP: an endpoint is chosen once, then bytes flow.
//!
//! Source: spec L7 §2.4, §8.11.

mod term;

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use shared::hbone::{Reason, Stream};
use shared::mesh::Service;
use shared::telemetry::access::{Bytes, Direction, End, Failure as Told, Record, Side};
use shared::telemetry::traffic::ResponseFlag;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::time::Instant;

pub(crate) use self::term::Over;
use self::term::Term;
use crate::cluster::{Aim, Wish, Work};
use crate::outcome::Outcome;
use crate::permits::Watch;
use crate::request::{Failure, aim, check};
use crate::router::Choice;
use crate::tunnel::{Client, Target};
use crate::upstream::{Endpoint, Io, Speaks, Way, connect as dial};
use crate::{metrics, permits};

/// Endpoints tried for one connection (design D8).
const TRIES: usize = 3;

/// An endpoint that was connected.
pub(crate) struct Connected {
    pub(crate) io: Io,
    /// What it said before the client did.
    pub(crate) greeting: BytesMut,
    endpoint: Endpoint,
    service: Option<Arc<Service>>,
    watch: Watch,
    term: Term,
    /// The endpoint has work to do until this is dropped.
    _work: Work,
}

/// Carries a connection to an endpoint, which may have been connected already.
pub(crate) async fn serve(
    client: Rc<Client>,
    mut stream: Stream,
    connected: Option<Box<Connected>>,
    server_name: Option<&str>,
) {
    let started = Instant::now();
    let connected = match connected {
        Some(connected) => Ok(*connected),
        None => connect(&client, server_name).await,
    };
    let connected = match connected {
        Ok(connected) => connected,
        Err(failure) => {
            let outcome = Outcome::from(&failure);
            let service = client.target.service().cloned();
            metrics::with_labels(&client, None, service.as_deref(), |labels| {
                client.worker.traffic.failed(labels, flag(outcome));
            });
            let told = Told { cause: outcome.code(), error: &failure };
            tell(&client, None, service.as_deref(), None, started, End::Failed(told));
            return stream.reset(Reason::CANCEL);
        }
    };
    let Connected { io, greeting, endpoint, service, mut watch, term, _work } = connected;
    let mut io = term.watch(io);
    let counted =
        metrics::with_labels(&client, Some(&endpoint.workload), service.as_deref(), |labels| {
            client.worker.traffic.open(labels)
        });
    let carried = async {
        stream.write_all(&greeting).await?;
        copy_bidirectional(&mut stream, &mut io).await
    };
    let forced = client.drain.forced();
    let ended = tokio::select! {
        ended = carried => ended.map_err(|error| (Outcome::UPSTREAM_CUT, error)),
        denial = watch.revoked() => {
            let denied = Failure::Revoked(denial);
            Err((Outcome::from(&denied), std::io::Error::other(denied.to_string())))
        }
        over = term.over() => {
            Err((Outcome::from(&over), std::io::Error::other(over.to_string())))
        }
        () = pin!(forced) => {
            let drained = std::io::Error::other("connection closed due to connection drain");
            Err((Outcome::UPSTREAM_CUT, drained))
        }
    };
    match ended {
        Ok((received, sent)) => {
            let sent = sent + greeting.len() as u64;
            counted.received(received);
            counted.sent(sent);
            counted.close(ResponseFlag::None);
            let bytes = Bytes { sent, received };
            tell(&client, Some(&endpoint), service.as_deref(), Some(bytes), started, End::Complete);
        }
        Err((outcome, error)) => {
            counted.close(flag(outcome));
            let told = Told { cause: outcome.code(), error: &error };
            tell(&client, Some(&endpoint), service.as_deref(), None, started, End::Failed(told));
            stream.reset(Reason::CANCEL);
        }
    }
}

/// Connects an endpoint of the target, by its TLS and TCP routes where it has some.
///
/// # Errors
/// Nobody could be connected.
pub(crate) async fn connect(
    client: &Rc<Client>,
    server_name: Option<&str>,
) -> Result<Connected, Failure> {
    let mesh = client.worker.node.mesh.load();
    let (allowed, watch) =
        permits::admit_bytes(client, &mesh, server_name).map_err(Failure::Denied)?;
    let (cluster, service) = match &client.target {
        Target::Workload { workload, dialled } => {
            (client.worker.alone(Endpoint::new(Arc::clone(workload), *dialled)), None)
        }
        Target::Service { service, port, .. } => {
            let table = client.worker.router.table(&mesh, service);
            let aim = match table.tcp(*port, Some(client.peer.id().namespace()), server_name) {
                None => {
                    let aim = Aim::whole(service, *port);
                    check(aim)?;
                    aim
                }
                Some(rule) => match rule.choose(fastrand::u64(..)) {
                    Choice::Backend(backend) => aim(&mesh, &backend.destination)?,
                    Choice::Invalid(reason) if rule.route().kind.is_virtual() => {
                        return Err(Failure::DestinationUnknown(reason.into()));
                    }
                    Choice::Invalid(reason) => return Err(Failure::Backend(reason.into())),
                    Choice::NoBackends => return Err(Failure::NoBackends),
                },
            };
            let cluster = client.worker.upstream.cluster(&mesh, client, aim);
            (cluster, Some(Arc::clone(aim.service)))
        }
    };
    let name = service.as_ref().map_or_else(|| "".into(), |service| service.key.hostname.clone());
    let mut failure = Failure::NoEndpoint(name);
    for endpoint in cluster.order(Wish::default(), TRIES, Instant::now()) {
        let permit = cluster.connection()?;
        let mut work = cluster.dial(endpoint, Instant::now());
        let hostname = service.as_ref().map(|service| &*service.key.hostname);
        let way = Way { client, permit: &allowed, endpoint, service: hostname, cluster: &cluster };
        match dial(way, permit, Speaks::Bytes).await {
            Ok(io) => {
                work.connected(Instant::now());
                let (greeting, endpoint) = (BytesMut::new(), endpoint.clone());
                let term = Term::new(cluster.limits());
                return Ok(Connected { io, greeting, endpoint, service, watch, term, _work: work });
            }
            Err(error) if error.is_final() => return Err(Failure::Connect(error)),
            Err(error) => {
                work.not_connected(error.gone(), Instant::now());
                failure = Failure::Connect(error);
            }
        }
    }
    Err(failure)
}

fn flag(outcome: Outcome) -> ResponseFlag {
    match outcome {
        Outcome::POLICY_DENIED | Outcome::POLICY_CHANGED => ResponseFlag::Denied,
        _ => ResponseFlag::Connect,
    }
}

fn tell(
    client: &Client,
    endpoint: Option<&Endpoint>,
    service: Option<&Service>,
    bytes: Option<Bytes>,
    started: Instant,
    end: End<'_>,
) {
    let connection = client.trace.map(|trace| trace.trace_id().to_string());
    client.worker.node.access.write(&Record {
        direction: Direction::Inbound,
        source: metrics::source_side(client),
        destination: endpoint.map_or_else(Side::default, |endpoint| Side {
            address: Some(endpoint.address),
            identity: endpoint.tunnel.then_some(&*endpoint.identity),
            ..metrics::side(&endpoint.workload)
        }),
        hbone_address: Some(&client.authority),
        service: service.map(|service| &*service.key.hostname),
        bytes,
        duration: Some(started.elapsed()),
        connection: connection.as_deref(),
        handover: false,
        end,
    });
}
