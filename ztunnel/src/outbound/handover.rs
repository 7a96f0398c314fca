//! Same-node hand-over: no tunnel between two pods of this process.
//!
//! Invariants: the far end decides as for a tunnel, by the same code; who calls is what its
//! certificate says, and the address that counts is the pod's own. Where a tunnel could differ in
//! anything but its cost, there is a tunnel.
//! Source: design D11.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use shared::drain::{Guard, Phase};
use shared::hbone::{self, Request};
use shared::identity::SpiffeId;
use shared::mesh::Workload;
use shared::tls::PeerId;
use tokio::net::TcpStream;

use crate::copy::{self, Copy, Cut, Side, Upstream};
use crate::inbound;
use crate::inbound::application::{End, watched};
use crate::inbound::delivery::{Arrival, Delivered, deliver};
use crate::metrics::ConnectionLog;
use crate::node::permits::Watch;
use crate::outbound::connect::{Call, Way};
use crate::outbound::{Error, gone};
use crate::outcome::Outcome;
use crate::pods::Pod;

/// A pod of this process that a connection can be handed over to.
pub(super) struct Neighbour {
    pod: Arc<Pod>,
    peer: PeerId,
    local: SocketAddr,
}

/// The destination's end of a connection that was handed over.
pub(super) struct FarEnd {
    pod: Arc<Pod>,
    watch: Watch,
    log: ConnectionLog,
    /// The destination waits for the connection when it leaves, and cuts it at its deadline.
    guard: Guard,
}

impl Neighbour {
    /// The pod of `endpoint`, whose proxy is reached at `local` and must be one of `expected`, if that
    /// is this process and nothing asks for a tunnel.
    pub(super) fn find(
        call: &Call<'_>,
        endpoint: &Workload,
        local: SocketAddr,
        expected: &[SpiffeId],
    ) -> Option<Self> {
        let worker = call.worker;
        let handover = worker.node.handover.as_ref()?;
        // Packets that a NetworkPolicy is about have to be packets on the network.
        if endpoint.native_tunnel || endpoint.network_guarded || call.source.network_guarded {
            return None;
        }
        let pod = handover.served.find(&endpoint.uid)?;
        let is_its_own = pod.ips.contains(&local.ip()) && pod.drain.phase() == Phase::Running;
        // A tunnel comes from an address of the pod, whatever address the application has taken.
        let from = call.from.ip();
        if !is_its_own || !call.pod.ips.contains(&from) || from.is_ipv4() != local.is_ipv4() {
            return None;
        }
        let pair = (&call.pod.identity, &pod.identity);
        let peer = worker.proofs.prove(&worker.node.certificates, pair, expected)?;
        Some(Self { pod, peer, local })
    }

    /// Asks the neighbour for what `request` would ask its proxy for.
    ///
    /// # Errors
    /// Its refusal, as its proxy would answer it.
    pub(super) async fn open(self, call: &Call<'_>, request: Request) -> Result<Way, Error> {
        let pod = Arc::clone(&self.pod);
        let guard = pod.drain.guard();
        let arrival = Arrival {
            worker: Rc::clone(call.worker),
            pod: self.pod,
            from: call.from,
            local: self.local,
            peer: self.peer,
            handover: true,
        };
        let delivered = tokio::select! {
            delivered = deliver(&arrival, Ok(&request), gone(call.socket)) => delivered,
            // It leaves: its tunnels would end.
            () = pod.drain.forced() => return Err(Error::Tunnel(hbone::Error::PeerClosed)),
        };
        let Delivered { application, watch, log, .. } =
            delivered.map_err(|error| refusal(&error))?;
        if let Some(handover) = &call.worker.node.handover {
            handover.connections.inc();
        }
        let far = Box::new(FarEnd { pod, watch, log, guard });
        Ok(Way { upstream: Upstream::Socket(application), made_for_it: false, far: Some(far) })
    }
}

/// What a tunnel would be answered.
fn refusal(error: &inbound::Error) -> Error {
    if matches!(error, inbound::Error::ClientGone) {
        return Error::ClientGone;
    }
    let outcome = Outcome::from(error);
    Error::Status { status: outcome.status(), cause: Some(outcome.code().into()) }
}

impl FarEnd {
    /// Tells the destination's end.
    pub(super) fn log(&self) -> &ConnectionLog {
        &self.log
    }

    /// Runs `copy` as both ends of a tunnel would: until the end, until policy withdraws the permit, or
    /// until the destination leaves.
    ///
    /// # Errors
    /// What the near end would see of the tunnel.
    pub(super) async fn carry(
        self: Box<Self>,
        copy: &mut Copy<'_, TcpStream, Upstream>,
    ) -> Result<(), copy::Error> {
        let Self { pod, watch, log, guard } = *self;
        let end = tokio::select! {
            biased;
            end = watched(copy, &watch) => end,
            // The log tells that it was drained.
            () = pod.drain.forced() => return Err(far(Cut::Reset)),
        };
        end.tell(log);
        drop(guard);
        match end {
            End::Done => Ok(()),
            End::Denied(_) => Err(far(Cut::Reset)),
            End::Undelivered(_) => Err(far(Cut::Undelivered)),
            End::Cut(copy::Error { side: Side::Far, .. }) => Err(far(Cut::Reset)),
            End::Cut(error) => Err(error),
        }
    }
}

fn far(cut: Cut) -> copy::Error {
    copy::Error { side: Side::Far, cut }
}
