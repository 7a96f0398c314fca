//! What it takes to serve one pod, and to let it go.
//!
//! ```text
//! open ──► listeners ──► accept loops ──► rules (read back) ──► certificate ──► up
//!  namespace checks                        captured from here on
//! ```
//! Source: spec L4 §8.5, §9.7; design §8 'Namespaces'.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use shared::chain::Chain;
use shared::drain;
use shared::feed::LocalPod;
use shared::identity::{self, CertStore, ParseError, SpiffeId, TrustDomain};
use shared::mesh::Uid;
use shared::workers::Workers;

use crate::pods::accept::Door;
use crate::pods::share::{self, Limits, Share};
use crate::pods::{Pod, PodName, Serve, Side};
use crate::redirect::{
    Capture, Home, Namespace, NamespaceId, PROXY_MARK, Ports, Sockets, capture, netns, sockets,
};

/// A pod counts as up after this long even if no certificate has come: its connections wait then.
const CERTIFICATE_LIMIT: Duration = Duration::from_secs(10);
const CERTIFICATE_LOOK: Duration = Duration::from_millis(50);

/// Why a pod is not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing says where the pod's namespace is.
    #[error("annotation culvert.dev/netns is missing")]
    NoPath,
    /// The annotation names something that must not or cannot be used.
    #[error("annotation culvert.dev/netns")]
    Namespace(#[source] netns::Error),
    /// Two pods name one namespace.
    #[error("annotation culvert.dev/netns names the network namespace of {0}")]
    Taken(Uid),
    /// The namespace is not the pod's: it lacks one of its addresses.
    #[error("the network namespace does not have the pod's address {0}")]
    Address(IpAddr),
    /// Name or account cannot be an identity.
    #[error("the pod has no usable identity")]
    Identity(#[source] ParseError),
    /// A port of the proxy is in use inside the pod.
    #[error("cannot listen on port {port} in the pod")]
    Listen {
        /// Which port.
        port: u16,
        /// `AddrInUse`: another program of the pod has it.
        #[source]
        source: io::Error,
    },
    /// The kernel did not take the rules.
    #[error("cannot capture the pod's traffic")]
    Capture(#[source] capture::Error),
}

impl Error {
    /// The stable code of this failure.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::NoPath => "NETNS_UNKNOWN",
            Self::Namespace(netns::Error::Own | netns::Error::Host) => "NETNS_FORBIDDEN",
            Self::Namespace(_) => "NETNS_UNUSABLE",
            Self::Taken(_) => "NETNS_SHARED",
            Self::Address(_) => "NETNS_FOREIGN",
            Self::Identity(_) => "POD_IDENTITY",
            Self::Listen { .. } => "PORT_TAKEN",
            Self::Capture(_) => "CAPTURE_FAILED",
        }
    }

    /// Whether this process may be the reason, so that another instance should stay in charge.
    /// A wrong annotation must not keep a node from being ready.
    pub fn blocks_readiness(&self) -> bool {
        matches!(self, Self::Listen { .. } | Self::Capture(_))
    }

    /// The message with its sources, as one line.
    pub fn reason(&self) -> String {
        Chain(self).to_string()
    }
}

/// What all pods share.
pub(super) struct Means<S> {
    pub home: Arc<Home>,
    pub trust_domain: TrustDomain,
    pub ports: Ports,
    pub sockets: sockets::Options,
    pub workers: Workers,
    pub certificates: CertStore,
    pub serve: Arc<S>,
    pub limits: Limits,
    pub shares: share::Metrics,
}

/// Where a pod's sockets open: checked, not yet changed.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A namespace of its own, to be captured.
    Namespace(Arc<Namespace>),
    /// The namespace of the process (dedicated mode): nothing is captured.
    Here,
}

impl Place {
    pub(super) fn id(&self) -> Option<NamespaceId> {
        match self {
            Self::Namespace(namespace) => Some(namespace.id()),
            Self::Here => None,
        }
    }
}

/// Opens the namespace that `local` names and makes sure that it is the pod's.
pub(super) fn open(local: &LocalPod, home: &Arc<Home>) -> Result<Place, Error> {
    let path: &Path = local.netns.as_deref().ok_or(Error::NoPath)?;
    let namespace = Namespace::open(path, home).map_err(Error::Namespace)?;
    let held = capture::addresses(&namespace).map_err(Error::Capture)?;
    if let Some(missing) = local.ips.iter().find(|ip| !held.contains(ip)) {
        return Err(Error::Address(*missing));
    }
    Ok(Place::Namespace(Arc::new(namespace)))
}

/// A pod that is served. Dropping it without [`Self::withdraw`] or [`Self::drain`] leaves it served.
pub(super) struct Enrolment {
    pub pod: Arc<Pod>,
    pub place: Place,
    trigger: drain::Trigger,
}

impl Enrolment {
    /// Serves `local` at `place`. On failure its listeners are closed again; rules that were in
    /// force before stay.
    pub(super) async fn start<S: Serve>(
        local: LocalPod,
        place: Place,
        means: Arc<Means<S>>,
    ) -> Result<Self, Error> {
        let identity =
            SpiffeId::new(means.trust_domain.clone(), &local.namespace, &local.service_account)
                .map_err(Error::Identity)?;
        means.certificates.prefetch(&identity);
        let (trigger, watch) = drain::channel();
        let sockets = match &place {
            Place::Namespace(namespace) => Sockets::inside(Arc::clone(namespace), PROXY_MARK),
            Place::Here => Sockets::here(None),
        }
        .with(means.sockets);
        let workload = PodName {
            namespace: Arc::clone(&local.namespace),
            name: Arc::clone(&local.name),
            service_account: Arc::clone(&local.service_account),
        };
        let share =
            Share::new(workload.clone(), means.limits, means.workers.limit(), means.shares.clone());
        let share = Arc::new(share);
        let pod = Arc::new(Pod {
            uid: local.uid.clone(),
            workload,
            identity,
            ips: local.ips.to_vec(),
            known: AtomicBool::new(false),
            sockets,
            windows: share.windows(),
            drain: watch,
        });
        let enrolment = Self { pod, place, trigger };
        enrolment.listen(&means, &share)?;
        if let Err(error) = enrolment.capture(&local, means.ports).await {
            enrolment.close().await;
            return Err(error);
        }
        match first_certificate(&means.certificates, &enrolment.pod.identity).await {
            Ok(()) => {}
            Err(Some(error)) => tracing::warn!(pod = %enrolment.pod.workload, %error,
                "the pod has no certificate yet"),
            Err(None) => tracing::warn!(pod = %enrolment.pod.workload,
                "the pod has no certificate yet: no answer"),
        }
        Ok(enrolment)
    }

    fn listen<S: Serve>(&self, means: &Means<S>, share: &Arc<Share>) -> Result<(), Error> {
        let bind = |side| {
            let sockets = &self.pod.sockets;
            let (port, listener) = match side {
                Side::Outbound => (means.ports.outbound, sockets.listen(means.ports.outbound)),
                Side::Inbound => (means.ports.inbound, sockets.listen(means.ports.inbound)),
                Side::Tunnel => {
                    (means.ports.tunnel, sockets.listen_for_tunnels(means.ports.tunnel))
                }
            };
            listener
                .map(|listener| (side, listener))
                .map_err(|source| Error::Listen { port, source })
        };
        // All are bound before any accepts: a failure then costs no connection.
        let bound = Side::ALL.into_iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        for (side, listener) in bound {
            Door {
                side,
                share: Arc::clone(share),
                pod: Arc::clone(&self.pod),
                workers: means.workers.clone(),
                serve: Arc::clone(&means.serve),
            }
            .open(listener);
        }
        Ok(())
    }

    async fn capture(&self, local: &LocalPod, ports: Ports) -> Result<(), Error> {
        let Place::Namespace(namespace) = self.place.clone() else { return Ok(()) };
        let capture = Capture {
            ports,
            bypass_inbound: local.bypass_inbound,
            reroute_interfaces: local
                .reroute_interfaces
                .iter()
                .map(|name| name.to_string())
                .collect(),
        };
        let pod = self.pod.workload.clone();
        let applied = blocking(move || {
            if let Err(error) = capture::keep_accept_queues(&namespace) {
                tracing::debug!(%pod, %error, "net.ipv4.tcp_migrate_req stays as it is");
            }
            capture.apply(&namespace)
        });
        let applied = applied.await.map_err(Error::Capture)?;
        tracing::debug!(pod = %self.pod.workload, ?applied, "capture rules");
        Ok(())
    }

    /// Lets the pod go: no rule leads here any more, then listeners and connections end at once.
    pub(super) async fn withdraw(self) {
        if let Place::Namespace(namespace) = self.place.clone()
            && let Err(error) = blocking(move || capture::remove(&namespace)).await
        {
            let error = Error::Capture(error).reason();
            tracing::error!(pod = %self.pod.workload, %error,
                "capture rules could not be removed, use `ztunnel uncapture`");
        }
        self.close().await;
    }

    /// Closes listeners and ends connections at once; rules stay.
    pub(super) async fn close(self) {
        let outcome = self.trigger.force().await;
        self.say(outcome);
    }

    /// Closes the listeners and waits for the connections to end by themselves; `until` ends those
    /// that have not. Rules stay.
    pub(super) async fn drain(self, until: drain::Reached) {
        let never = tokio::time::Instant::now() + Duration::from_secs(86_400);
        let outcome = tokio::select! {
            outcome = self.trigger.start(never) => outcome,
            () = until => self.trigger.force().await,
        };
        self.say(outcome);
    }

    fn say(&self, outcome: drain::Outcome) {
        if let drain::Outcome::Forced { open, stuck } = outcome {
            tracing::debug!(pod = %self.pod.workload, open, stuck, "connections were ended");
        }
    }
}

/// Waits for a certificate, through attempts that fail: an authority that reads the mesh for itself
/// may hear of a new pod a moment later than we do. Gives the last failure when it takes too long.
async fn first_certificate(
    certificates: &CertStore,
    identity: &SpiffeId,
) -> Result<(), Option<identity::Error>> {
    let mut failure = None;
    let obtained = async {
        while let Err(error) = certificates.certificate(identity).await {
            failure = Some(error);
            // The store decides when to ask again; this only looks whether it has.
            tokio::time::sleep(CERTIFICATE_LOOK).await;
        }
    };
    let timely = tokio::time::timeout(CERTIFICATE_LIMIT, obtained).await;
    timely.map_err(|_| failure)
}

/// Runs kernel work that may take milliseconds beside the control thread.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
