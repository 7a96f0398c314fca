//! From a destination to an open way there: candidates in order of load, at most three.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use shared::balance::InFlight;
use shared::headers::TraceParent;
use shared::mesh::{Mesh, Service, Uid, Workload};
use shared::telemetry::access::Direction;
use shared::telemetry::traffic::Security;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::copy::Upstream;
use crate::metrics::{ConnectionLog, Story};
use crate::node::OnWorker;
use crate::outbound::handover::{FarEnd, Neighbour};
use crate::outbound::resolve::{Endpoints, Hop, Host, Query, Route, Target, resolve};
use crate::outbound::{Error, tunnel};
use crate::outcome::{Outcome, Retry};
use crate::pods::Pod;

/// Design D8: endpoints tried for one connection.
const TRIES: usize = 3;

/// One connection on its way.
pub(super) struct Call<'a> {
    pub(super) worker: &'a Rc<OnWorker>,
    pub(super) pod: &'a Arc<Pod>,
    pub(super) source: Arc<Workload>,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) trace: TraceParent,
    /// The application's.
    pub(super) socket: &'a TcpStream,
}

/// An open way to the destination.
pub(super) struct Connected {
    pub(super) upstream: Upstream,
    pub(super) log: ConnectionLog,
    /// The endpoint, where its own proxy is the other end of the tunnel: it can say that its
    /// application took nothing, and is believed.
    pub(super) endpoint: Option<Uid>,
    /// The other end, where it is a pod of this process and no tunnel is between them.
    pub(super) far: Option<Box<FarEnd>>,
    /// The endpoint has work to do until this is dropped.
    pub(super) _work: Option<InFlight>,
}

/// A way to an endpoint.
pub(super) struct Way {
    pub(super) upstream: Upstream,
    /// Whether a tunnel had to be made first, which later connections share.
    pub(super) made_for_it: bool,
    /// The other end, where there is no tunnel to it.
    pub(super) far: Option<Box<FarEnd>>,
}

/// There is none.
pub(super) struct Failed {
    /// What is known about the last attempt; none when nothing was attempted.
    pub(super) story: Option<Box<Story>>,
    pub(super) error: Error,
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { story: None, error: error.into() }
    }
}

/// Opens a way from the first to the second of `ends`, not to an endpoint that was `tried`.
pub(super) async fn reach(
    worker: &Rc<OnWorker>,
    pod: &Arc<Pod>,
    (from, to): (SocketAddr, SocketAddr),
    socket: &TcpStream,
    tried: &[Uid],
) -> Result<Connected, Failed> {
    let source = worker.workload(pod).await;
    let source = source.ok_or_else(|| Error::SourceUnknown(pod.workload.clone()))?;
    let call = Call { worker, pod, source, from, to, trace: TraceParent::random(), socket };
    let mesh = worker.node.mesh.load();
    let query = Query { source: &call.source, destination: to, draw: fastrand::u64(..) };
    match resolve(&mesh, &query).map_err(Error::from)? {
        Route::Passthrough { service, to } => call.pass_through(service, to).await,
        Route::Endpoints(mut endpoints) => {
            endpoints.candidates.retain(|one| !tried.contains(&one.workload.uid));
            call.try_endpoints(&mesh, &query, endpoints, TRIES.saturating_sub(tried.len())).await
        }
    }
}

impl Call<'_> {
    async fn pass_through(
        &self,
        service: Option<&Arc<Service>>,
        to: SocketAddr,
    ) -> Result<Connected, Failed> {
        let story = Story { destination_addr: Some(to), ..self.story(service, None) };
        match self.plain(to).await {
            Ok(way) => {
                let log = ConnectionLog::open(self.worker, story);
                Ok(Connected {
                    upstream: way.upstream,
                    log,
                    endpoint: None,
                    far: None,
                    _work: None,
                })
            }
            Err(error) => Err(Failed { story: Some(story.into()), error }),
        }
    }

    async fn try_endpoints(
        &self,
        mesh: &Mesh,
        query: &Query<'_>,
        mut route: Endpoints<'_>,
        tries: usize,
    ) -> Result<Connected, Failed> {
        let loads = &self.worker.loads;
        let candidates = std::mem::take(&mut route.candidates);
        let random = &mut fastrand::Rng::new();
        let order =
            loads.order(candidates, |one| (one.workload, one.port), tries, random, Instant::now());
        let mut failed = None;
        for candidate in order {
            let hop = match route.hop(mesh, query, &candidate) {
                Ok(hop) => hop,
                Err(error) => {
                    failed.get_or_insert_with(|| Failed::from(error));
                    continue;
                }
            };
            let endpoint = &candidate.workload.uid;
            let began = Instant::now();
            let mut work = loads.start(endpoint, candidate.port, began);
            let mut story = self.story(route.service, Some(candidate.workload));
            match self.hop(&hop, route.service, &mut story).await {
                Ok(Way { upstream, made_for_it, far }) => {
                    let took = (!made_for_it).then(|| began.elapsed());
                    work.connected(took, Instant::now());
                    let endpoint = hop.ends_at_endpoint().then(|| endpoint.clone());
                    let log = match &far {
                        Some(far) => ConnectionLog::open_beside(self.worker, story, far.log()),
                        None => ConnectionLog::open(self.worker, story),
                    };
                    return Ok(Connected { upstream, log, endpoint, far, _work: Some(work) });
                }
                Err(error) => {
                    let outcome = Outcome::from(&error);
                    let gone = error.gone(hop.ends_at_endpoint());
                    failed = Some(Failed { story: Some(story.into()), error });
                    if outcome.retry() == Retry::Never {
                        break;
                    }
                    match gone {
                        Some(what) => {
                            tracing::debug!(%endpoint, ?what, "nobody is there, so it is left out");
                            work.gone(what, Instant::now());
                        }
                        None => work.failed(Instant::now()),
                    }
                }
            }
        }
        // A route has a candidate; should none have been chosen, the service is idle.
        let none = crate::outbound::resolve::Unroutable::NoHealthyUpstream(self.to);
        Err(failed.unwrap_or_else(|| none.into()))
    }

    async fn hop(
        &self,
        hop: &Hop,
        service: Option<&Arc<Service>>,
        story: &mut Story,
    ) -> Result<Way, Error> {
        match hop {
            Hop::Tcp(target) => {
                let to = self.address(target).await?;
                story.destination_addr = Some(to);
                self.plain(to).await
            }
            Hop::Tunnel(tunnel) => {
                let to = self.address(&tunnel.to).await?;
                story.destination_addr = Some(to);
                story.authority = Some(tunnel.authority.to_string().into());
                story.security = Security::MutualTls;
                story.source_identity = Some(self.pod.identity.clone());
                let endpoint = story.destination.as_deref().filter(|_| hop.ends_at_endpoint());
                let neighbour = endpoint
                    .and_then(|endpoint| Neighbour::find(self, endpoint, to, &tunnel.expected));
                match neighbour {
                    Some(neighbour) => {
                        story.handover = true;
                        neighbour.open(self, tunnel::request(self, tunnel, service)).await
                    }
                    None => tunnel::open(self, tunnel, to, service).await,
                }
            }
        }
    }

    async fn plain(&self, to: SocketAddr) -> Result<Way, Error> {
        let connect = self.pod.sockets.connect(to, None);
        match tokio::time::timeout(self.worker.config().connect_timeout, connect).await {
            Ok(Ok(socket)) => {
                Ok(Way { upstream: Upstream::Socket(socket), made_for_it: false, far: None })
            }
            Ok(Err(error)) => Err(Error::Connect(error)),
            Err(_) => Err(Error::ConnectTimeout),
        }
    }

    /// The address of a target; a name is looked up with the node's own resolver, and one of its
    /// addresses taken at random, of the family that was asked for where there is one.
    async fn address(&self, target: &Target) -> Result<SocketAddr, Error> {
        let name = match &target.host {
            Host::Ip(ip) => return Ok(SocketAddr::new(*ip, target.port)),
            Host::Name(name) => name,
        };
        let failed = |source| Error::Name { name: Arc::clone(name), source };
        let lookup = tokio::net::lookup_host((&**name, target.port));
        let found = tokio::time::timeout(self.worker.config().connect_timeout, lookup).await;
        let found = found.map_err(std::io::Error::from).flatten().map_err(failed)?;
        let (same, other): (Vec<_>, Vec<_>) =
            found.partition(|address| address.is_ipv4() == self.to.is_ipv4());
        fastrand::choice(same)
            .or_else(|| fastrand::choice(other))
            .ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))
    }

    fn story(&self, service: Option<&Arc<Service>>, destination: Option<&Arc<Workload>>) -> Story {
        Story {
            direction: Direction::Outbound,
            source_addr: self.from,
            source: Some(Arc::clone(&self.source)),
            source_baggage: None,
            source_identity: None,
            original: self.to,
            destination_addr: None,
            authority: None,
            destination: destination.cloned(),
            service: service.cloned(),
            security: Security::Unknown,
            trace: Some(self.trace),
            handover: false,
        }
    }
}
