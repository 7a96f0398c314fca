//! From what a proved peer asks for to the application's socket: one way for streams of tunnels and
//! for connections that another pod of this process hands over.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use shared::authz::Permit;
use shared::hbone::{BadRequest, Request};
use shared::headers::{Authority, BAGGAGE, Baggage, FORWARDED_NETWORK, Forwarded, TraceParent};
use shared::mesh::{Mesh, Workload};
use shared::telemetry::access::Direction;
use shared::telemetry::traffic::Security;
use shared::tls::PeerId;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::inbound::target::{Delivery, Listener};
use crate::inbound::{Error, TargetError, application, proxy_protocol};
use crate::metrics::{self, ConnectionLog, Story};
use crate::node::OnWorker;
use crate::node::permits::{Case, Watch};
use crate::outbound::resolve::is_waypoint_of;
use crate::outcome::Outcome;
use crate::pods::Pod;

/// Somebody who has proved who they are, at a pod.
pub(crate) struct Arrival {
    pub(crate) worker: Rc<OnWorker>,
    pub(crate) pod: Arc<Pod>,
    /// The TCP peer.
    pub(crate) from: SocketAddr,
    /// The address that it reached.
    pub(crate) local: SocketAddr,
    /// Who it proved to be.
    pub(crate) peer: PeerId,
    /// It is a pod of this process, and no tunnel is between them.
    pub(crate) handover: bool,
}

/// The application has accepted.
pub(crate) struct Delivered {
    pub(crate) application: TcpStream,
    pub(crate) watch: Watch,
    pub(crate) log: ConnectionLog,
    /// The pod's workload, as it was decided about.
    pub(crate) workload: Arc<Workload>,
}

/// What an allowed connection needs.
struct Admitted {
    permit: Permit,
    watch: Watch,
    delivery: Delivery,
    /// Whom the application is shown.
    client: SocketAddr,
}

/// Opens the application's socket for `request`, if that is allowed, until `gone` ends. What fails is
/// told here, in the log and the metrics of the pod.
///
/// # Errors
/// Why not; [`Outcome`] says what the peer is answered.
pub(crate) async fn deliver(
    arrival: &Arrival,
    request: Result<&Request, BadRequest>,
    gone: impl Future<Output = ()>,
) -> Result<Delivered, Error> {
    let prepared = match workload(arrival).await {
        Ok(workload) => admit(arrival, &workload, request).map(|(story, it)| (workload, story, it)),
        Err(error) => Err(error),
    };
    let (workload, story, admitted) = prepared.inspect_err(|error| {
        let ends = (arrival.from, arrival.local);
        let outcome = Outcome::from(error);
        metrics::refuse(&arrival.worker, Direction::Inbound, ends, outcome, error);
    })?;
    match reach(arrival, admitted, gone).await {
        Ok((application, watch)) => {
            let log = ConnectionLog::open(&arrival.worker, story);
            Ok(Delivered { application, watch, log, workload })
        }
        Err(error) => {
            story.fail(&arrival.worker, Outcome::from(&error), &error);
            Err(error)
        }
    }
}

async fn workload(arrival: &Arrival) -> Result<Arc<Workload>, Error> {
    let Arrival { worker, pod, .. } = arrival;
    match worker.here(pod) {
        Some(workload) => Ok(workload),
        // Whoever asks can ask another endpoint at once; a pod that is new is waited for.
        None if worker.has_left(pod) => Err(Error::PodGone(pod.workload.clone())),
        None => {
            let appeared = worker.workload(pod).await;
            appeared.ok_or_else(|| Error::WorkloadUnknown(pod.workload.clone()))
        }
    }
}

async fn reach(
    arrival: &Arrival,
    admitted: Result<Admitted, Error>,
    gone: impl Future<Output = ()>,
) -> Result<(TcpStream, Watch), Error> {
    let Admitted { permit, watch, delivery, client } = admitted?;
    let connected = tokio::select! {
        connected = dial(arrival, &permit, &delivery, client) => connected,
        () = gone => Err(Error::ClientGone),
        denial = watch.revoked() => Err(denial.into()),
    };
    match connected {
        Ok(application) => Ok((application, watch)),
        Err(Error::Connect(_) | Error::ConnectTimeout) if arrival.worker.has_left(&arrival.pod) => {
            Err(Error::PodGone(arrival.pod.workload.clone()))
        }
        Err(error) => Err(error),
    }
}

/// Checks the target and decides. The outer error is one before anything is known about the
/// destination; then there is no story to tell.
fn admit(
    arrival: &Arrival,
    workload: &Arc<Workload>,
    request: Result<&Request, BadRequest>,
) -> Result<(Story, Result<Admitted, Error>), Error> {
    let request = request?;
    let authority: Authority = request.authority.parse().map_err(TargetError::from)?;
    let mesh = arrival.worker.node.mesh.load();
    let listener = Listener {
        workload,
        addresses: &arrival.pod.ips,
        local: arrival.local.ip(),
        loopback: arrival.worker.config().loopback_app_tunnel,
    };
    let delivery = listener.deliver(&mesh, &authority)?;
    let case = Case {
        workload: Arc::clone(workload),
        peer: Some(arrival.peer.id().clone()),
        source_ip: arrival.from.ip(),
        destination: delivery.application,
    };
    let forwarded = Forwarded::parse(&request.headers);
    let client = shown(arrival, &mesh, workload, forwarded.client);
    let named = forwarded.host;
    let service = delivery
        .service
        .clone()
        .or_else(|| listener.guess_service(&mesh, delivery.application, named.as_deref()));
    let story = Story {
        direction: Direction::Inbound,
        source_addr: arrival.from,
        source_identity: Some(arrival.peer.id().clone()),
        original: delivery.application,
        destination_addr: Some(arrival.local),
        authority: Some(request.authority.clone()),
        destination: Some(Arc::clone(workload)),
        service,
        security: Security::MutualTls,
        trace: TraceParent::parse(&request.headers),
        ..source(arrival, &mesh, workload, &request.headers)
    };
    let admitted = arrival.worker.permits.admit(&mesh, case);
    let admitted = admitted.map(|(permit, watch)| Admitted { permit, watch, delivery, client });
    Ok((story, admitted.map_err(Error::from)))
}

/// Who the client is, for labels: by its address, unless it comes from another network through a
/// gateway, whose address it has; then by what it says.
fn source(arrival: &Arrival, mesh: &Mesh, workload: &Workload, headers: &HeaderMap) -> Story {
    let foreign = headers.get(FORWARDED_NETWORK).is_some_and(|network| {
        !network.as_bytes().eq_ignore_ascii_case(workload.network.as_bytes())
    });
    let known = mesh.workload_by_addr(&workload.network, arrival.from.ip());
    let source = known.filter(|_| !foreign).cloned();
    let baggage = source.is_none().then(|| Box::new(Baggage::parse(headers)));
    Story {
        source,
        source_baggage: baggage,
        direction: Direction::Inbound,
        source_addr: arrival.from,
        source_identity: None,
        original: arrival.local,
        destination_addr: None,
        authority: None,
        destination: None,
        service: None,
        security: Security::MutualTls,
        trace: None,
        handover: arrival.handover,
    }
}

/// Whom the application is shown as its client: the TCP peer, unless that has proved to be a waypoint
/// of this workload; then whom it names. Policy never goes by this.
fn shown(
    arrival: &Arrival,
    mesh: &Mesh,
    workload: &Workload,
    named: Option<SocketAddr>,
) -> SocketAddr {
    let named = named.filter(|named| named.is_ipv4() == arrival.from.is_ipv4());
    let Some(named) = named else { return arrival.from };
    let peer = mesh.workload_by_addr(&workload.network, arrival.from.ip());
    let waypoint = peer.is_some_and(|peer| {
        peer.identity == *arrival.peer.id() && is_waypoint_of(mesh, peer, workload)
    });
    if waypoint { named } else { arrival.from }
}

async fn dial(
    arrival: &Arrival,
    permit: &Permit,
    delivery: &Delivery,
    client: SocketAddr,
) -> Result<TcpStream, Error> {
    let (to, from) = match delivery.loopback {
        // Another source than loopback would be dropped on the way to loopback.
        Some(loopback) => (loopback, None),
        None => {
            let keep = arrival.worker.config().keep_source;
            (delivery.application, keep.then_some(client.ip()))
        }
    };
    let mut socket = application::connect(&arrival.worker, &arrival.pod, permit, to, from).await?;
    if let Some(announced) = delivery.announced {
        let header = proxy_protocol::header(client, announced, Some(arrival.peer.id()));
        socket.write_all(&header).await.map_err(Error::Connect)?;
    }
    Ok(socket)
}

/// What a client is told of who serves it.
pub(super) fn response(arrival: &Arrival, workload: &Workload) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if arrival.worker.config().response_baggage {
        headers.insert(BAGGAGE, Baggage::describe(workload));
    }
    headers
}
