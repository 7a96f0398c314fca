//! One CONNECT stream: from its target to the application.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use shared::authz::Permit;
use shared::hbone::{self, Incoming, Stream};
use shared::headers::{
    Authority, BAGGAGE, Baggage, FORWARDED_NETWORK, Forwarded, TraceParent, refusal,
};
use shared::mesh::{Mesh, Workload};
use shared::telemetry::access::Direction;
use shared::telemetry::traffic::Security;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::inbound::target::{Delivery, Listener};
use crate::inbound::tunnel::Tunnel;
use crate::inbound::{Error, TargetError, application, proxy_protocol};
use crate::metrics::{self, ConnectionLog, Story};
use crate::node::permits::{Case, Watch};
use crate::outbound::resolve::is_waypoint_of;
use crate::outcome::Outcome;

/// What a stream needs to be connected.
struct Admitted {
    permit: Permit,
    watch: Watch,
    delivery: Delivery,
    /// Whom the application is shown.
    client: SocketAddr,
}

/// A tunnel to an application.
struct Connected {
    stream: Stream,
    application: TcpStream,
    watch: Watch,
    log: ConnectionLog,
}

/// Serves a stream until it ends.
pub(super) async fn serve(tunnel: &Tunnel, incoming: Incoming) {
    // Boxed: a connection lives long after it was made.
    if let Some(Connected { stream, application, watch, log }) =
        Box::pin(connect(tunnel, incoming)).await
    {
        application::run(stream, application, watch, log).await;
    }
}

/// From the request to the 200; none when the stream was refused.
async fn connect(tunnel: &Tunnel, mut incoming: Incoming) -> Option<Connected> {
    let pod = || tunnel.pod.workload.clone();
    let workload = match tunnel.worker.here(&tunnel.pod) {
        Some(workload) => Ok(workload),
        // Whoever asks can ask another endpoint at once; a pod that is new is waited for.
        None if tunnel.worker.has_left(&tunnel.pod) => Err(Error::PodGone(pod())),
        None => {
            let appeared = tunnel.worker.workload(&tunnel.pod).await;
            appeared.ok_or_else(|| Error::WorkloadUnknown(pod()))
        }
    };
    let workload = match workload {
        Ok(workload) => workload,
        Err(error) => return refuse(tunnel, incoming, None, &error),
    };
    let (story, admitted) = match admit(tunnel, &workload, &incoming) {
        Ok(prepared) => prepared,
        Err(error) => return refuse(tunnel, incoming, None, &error),
    };
    let Admitted { permit, watch, delivery, client } = match admitted {
        Ok(admitted) => admitted,
        Err(error) => return refuse(tunnel, incoming, Some(&story), &error),
    };
    let connected = tokio::select! {
        connected = dial(tunnel, &permit, &delivery, client) => connected,
        () = incoming.cancelled() => Err(Error::ClientGone),
        denial = watch.revoked() => Err(denial.into()),
    };
    let application = match connected {
        Ok(application) => application,
        Err(error) => {
            let error = match error {
                Error::Connect(_) | Error::ConnectTimeout
                    if tunnel.worker.has_left(&tunnel.pod) =>
                {
                    Error::PodGone(pod())
                }
                error => error,
            };
            return refuse(tunnel, incoming, Some(&story), &error);
        }
    };
    let mut headers = HeaderMap::new();
    if tunnel.worker.config().response_baggage {
        headers.insert(BAGGAGE, Baggage::describe(&workload));
    }
    let log = ConnectionLog::open(&tunnel.worker, story);
    Some(Connected { stream: incoming.accept(&headers), application, watch, log })
}

/// Checks the target and decides. The outer error is one before anything is known about the
/// destination; then there is no story to tell.
fn admit(
    tunnel: &Tunnel,
    workload: &Arc<Workload>,
    incoming: &Incoming,
) -> Result<(Story, Result<Admitted, Error>), Error> {
    let request = incoming.request()?;
    let authority: Authority = request.authority.parse().map_err(TargetError::from)?;
    let mesh = tunnel.worker.node.mesh.load();
    let listener = Listener {
        workload,
        addresses: &tunnel.pod.ips,
        local: tunnel.local.ip(),
        loopback: tunnel.worker.config().loopback_app_tunnel,
    };
    let delivery = listener.deliver(&mesh, &authority)?;
    let case = Case {
        workload: Arc::clone(workload),
        peer: Some(tunnel.peer.id().clone()),
        source_ip: tunnel.from.ip(),
        destination: delivery.application,
    };
    let forwarded = Forwarded::parse(&request.headers);
    let client = shown(tunnel, &mesh, workload, forwarded.client);
    let named = forwarded.host;
    let service = delivery
        .service
        .clone()
        .or_else(|| listener.guess_service(&mesh, delivery.application, named.as_deref()));
    let story = Story {
        direction: Direction::Inbound,
        source_addr: tunnel.from,
        source_identity: Some(tunnel.peer.id().clone()),
        original: delivery.application,
        destination_addr: Some(tunnel.local),
        authority: Some(request.authority.clone()),
        destination: Some(Arc::clone(workload)),
        service,
        security: Security::MutualTls,
        trace: TraceParent::parse(&request.headers),
        ..source(tunnel, &mesh, workload, &request.headers)
    };
    let admitted = tunnel.worker.permits.admit(&mesh, case);
    let admitted = admitted.map(|(permit, watch)| Admitted { permit, watch, delivery, client });
    Ok((story, admitted.map_err(Error::from)))
}

/// Who the client is, for labels: by its address, unless it comes from another network through a
/// gateway, whose address it has; then by what it says.
fn source(tunnel: &Tunnel, mesh: &Mesh, workload: &Workload, headers: &HeaderMap) -> Story {
    let foreign = headers.get(FORWARDED_NETWORK).is_some_and(|network| {
        !network.as_bytes().eq_ignore_ascii_case(workload.network.as_bytes())
    });
    let known = mesh.workload_by_addr(&workload.network, tunnel.from.ip());
    let source = known.filter(|_| !foreign).cloned();
    let baggage = source.is_none().then(|| Box::new(Baggage::parse(headers)));
    Story {
        source,
        source_baggage: baggage,
        direction: Direction::Inbound,
        source_addr: tunnel.from,
        source_identity: None,
        original: tunnel.local,
        destination_addr: None,
        authority: None,
        destination: None,
        service: None,
        security: Security::MutualTls,
        trace: None,
    }
}

/// Whom the application is shown as its client: the TCP peer, unless that has proved to be a waypoint
/// of this workload; then whom it names. Policy never goes by this.
fn shown(
    tunnel: &Tunnel,
    mesh: &Mesh,
    workload: &Workload,
    named: Option<SocketAddr>,
) -> SocketAddr {
    let named = named.filter(|named| named.is_ipv4() == tunnel.from.is_ipv4());
    let Some(named) = named else { return tunnel.from };
    let peer = mesh.workload_by_addr(&workload.network, tunnel.from.ip());
    let waypoint = peer.is_some_and(|peer| {
        peer.identity == *tunnel.peer.id() && is_waypoint_of(mesh, peer, workload)
    });
    if waypoint { named } else { tunnel.from }
}

async fn dial(
    tunnel: &Tunnel,
    permit: &Permit,
    delivery: &Delivery,
    client: SocketAddr,
) -> Result<TcpStream, Error> {
    let (to, from) = match delivery.loopback {
        // Another source than loopback would be dropped on the way to loopback.
        Some(loopback) => (loopback, None),
        None => {
            let keep = tunnel.worker.config().keep_source;
            (delivery.application, keep.then_some(client.ip()))
        }
    };
    let mut socket = application::connect(&tunnel.worker, &tunnel.pod, permit, to, from).await?;
    if let Some(announced) = delivery.announced {
        let header = proxy_protocol::header(client, announced, Some(tunnel.peer.id()));
        socket.write_all(&header).await.map_err(Error::Connect)?;
    }
    Ok(socket)
}

/// Tells why, here and to the peer.
fn refuse<T>(
    tunnel: &Tunnel,
    incoming: Incoming,
    story: Option<&Story>,
    error: &Error,
) -> Option<T> {
    let outcome = Outcome::from(error);
    match story {
        Some(story) => story.fail(&tunnel.worker, outcome, error),
        None => {
            let ends = (tunnel.from, tunnel.local);
            metrics::refuse(&tunnel.worker, Direction::Inbound, ends, outcome, error);
        }
    }
    let status = match error {
        Error::Request(bad) => bad.status(),
        _ => outcome.status(),
    };
    debug_assert_ne!(status, StatusCode::OK);
    incoming.refuse(status, &refusal(outcome.code()));
    None
}

/// Whether a tunnel connection ended by a fault of the peer that somebody should know of.
pub(super) fn is_protocol_error(error: &hbone::Error) -> bool {
    matches!(error, hbone::Error::Protocol(_))
}
