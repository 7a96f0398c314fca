//! From a listener to a worker: accepts on the pod's home worker, hands over to it or another.
//!
//! Invariants: a failing accept never ends the loop and never spins; a pod that opens connections
//! as fast as it can waits for others after each few and at the limits of its share; when the process drains, no
//! connection that the kernel has completed is reset: it moves to the other process's listener,
//! or it is accepted before ours closes.
//! Not here: the connection's life ([`Serve`]).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SocketFlags;
use shared::drain::Phase;
use shared::workers::{self, Near, WorkerId, Workers};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

use crate::pods::share::{Place, Share};
use crate::pods::{Pod, Serve, Side};
use crate::redirect::{capture, sockets};

/// First pause after the process ran out of something, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// Connections accepted before the worker's other tasks get their turn. Each is worth a handshake,
/// so more would let one pod hold up the requests of others for milliseconds.
const TURN_CONNECTIONS: u32 = 8;

/// Where the connections of one listener go.
pub(super) struct Door<S> {
    pub side: Side,
    pub pod: Arc<Pod>,
    pub share: Arc<Share>,
    pub workers: Workers,
    pub serve: Arc<S>,
}

impl<S: Serve> Door<S> {
    /// Accepts from `listener` until the pod drains, which waits for the listener to close.
    pub(super) fn open(self, listener: TcpListener) {
        // The pod has no home before its first connection: it may never have one.
        let on = self.workers.least_loaded();
        self.open_on(on, listener);
    }

    fn open_on(self, worker: WorkerId, listener: TcpListener) {
        let (workers, tenant) = (self.workers.clone(), Arc::clone(self.share.tenant()));
        let guard = self.pod.drain.guard();
        workers.spawn_for(tenant, worker, move || async move {
            match self.run(listener).await {
                Ok(None) => {}
                Ok(Some((home, listener))) => self.open_on(home, listener),
                Err(error) => {
                    let (pod, side) = (&self.pod.workload, self.side.as_str());
                    tracing::error!(%pod, side, %error, "cannot accept");
                }
            }
            drop(guard);
        });
    }

    /// Accepts until the pod drains, or until it is at home on another worker: then the listener is
    /// to go there, so that its connections need no other thread.
    async fn run(&self, listener: TcpListener) -> io::Result<Option<(WorkerId, TcpListener)>> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that close or change their descriptor; a \
                      listener keeps its own"
        )]
        let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
        let mut draining = std::pin::pin!(self.pod.drain.draining());
        let mut pause = FIRST_PAUSE;
        let mut turn = 0;
        loop {
            let accepted = tokio::select! {
                // Nothing new once draining has begun.
                biased;
                () = &mut draining => break,
                accepted = listener.async_io(Interest::READABLE, accept) => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    let place = tokio::select! {
                        place = self.share.place() => Some(place),
                        () = &mut draining => None,
                    };
                    let drains = place.is_none();
                    let home = self.hand_over(socket, peer, place);
                    if drains {
                        break;
                    }
                    if workers::current() != Some(home) {
                        return Ok(Some((home, listener.into_inner())));
                    }
                    pause = FIRST_PAUSE;
                    turn += 1;
                    if turn % TURN_CONNECTIONS == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) if is_exhaustion(&error) => {
                    tracing::warn!(pod = %self.pod.workload, side = self.side.as_str(), %error,
                        "cannot accept, pausing");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                }
                // The client was gone before we looked, or its packets report an error.
                Err(error) => tracing::debug!(pod = %self.pod.workload, %error, "accept"),
            }
        }
        if self.pod.drain.phase() == Phase::Draining && !self.queue_moves(listener.get_ref()) {
            while let Ok((socket, peer)) = accept(listener.get_ref()) {
                // What the kernel has completed is served whatever the share.
                self.hand_over(socket, peer, None);
            }
        }
        Ok(None)
    }

    /// Whether the kernel hands our queue to another process's listener when ours closes.
    fn queue_moves(&self, listener: &TcpListener) -> bool {
        let port = listener.local_addr().map_or(0, |address| address.port());
        self.pod.sockets.namespace().is_some_and(|namespace| {
            capture::moves_accept_queues(namespace)
                && capture::listeners(namespace, port).is_ok_and(|listeners| listeners > 1)
        })
    }

    /// Gives the pod's home after it.
    fn hand_over(&self, socket: OwnedFd, peer: SocketAddr, place: Option<Place>) -> WorkerId {
        let tenant = self.share.tenant();
        let Near { worker, home } = self.workers.near(tenant);
        let (side, pod, serve) = (self.side, Arc::clone(&self.pod), Arc::clone(&self.serve));
        let guard = pod.drain.guard();
        self.workers.spawn_for(Arc::clone(tenant), worker, move || async move {
            // Registered with the event loop here, where it stays.
            let socket = match TcpStream::from_std(socket.into()) {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::warn!(pod = %pod.workload, %error, "cannot watch a socket");
                    return;
                }
            };
            let forced = pod.drain.forced();
            tokio::select! {
                // First the connection: it may see the end itself and log it.
                biased;
                () = serve.serve(side, pod, socket, peer) => {}
                () = forced => {}
            }
            drop((guard, place));
        });
        home
    }
}

fn accept(listener: &TcpListener) -> io::Result<(OwnedFd, SocketAddr)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (socket, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    let peer = peer
        .and_then(|peer| SocketAddr::try_from(peer).ok())
        .ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((socket, sockets::canonical(peer)))
}

/// Out of descriptors or memory: trying again at once would fail again.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
