//! The certificates of a node: asked for once, renewed in time, read without a lock.
//!
//! Invariants: a valid certificate is never dropped because a renewal failed; an expired one is
//! never handed out; who waits gets the result of the attempt that is in flight.
//! Not here: when to ask ([`schedule`](super::schedule)), whom to ask ([`Authority`]).

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::refresh::{Command, Refresh};
use super::schedule::{Config, Priority};
use super::{Authority, Error, SpiffeId, WorkloadCertificate};
use crate::chain::Chain;

/// A handle to the certificates. Cheap to clone, usable from every thread.
#[derive(Clone)]
pub struct CertStore {
    published: Arc<Published>,
    commands: mpsc::UnboundedSender<Command>,
}

/// What readers see. One writer: [`Refresh`].
pub(super) type Published = ArcSwap<HashMap<SpiffeId, Entry>>;

/// One identity as readers see it.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub(super) held: Option<Held>,
    pub(super) error: Option<Error>,
}

/// A certificate and its end on the clock that timers use. That clock stands still while the
/// machine sleeps, so the certificate's own time counts as well.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) certificate: Arc<WorkloadCertificate>,
    pub(super) expires: Instant,
}

impl Held {
    fn is_valid(&self, now: Instant) -> bool {
        self.expires > now && self.certificate.not_after() > SystemTime::now()
    }
}

/// One identity for `/config_dump`, without secrets.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Whose.
    pub identity: SpiffeId,
    /// Whether connections can use it.
    pub state: State,
    /// The serial number in hexadecimal.
    pub serial: Option<String>,
    /// From when the certificate counts, in seconds since 1970.
    pub not_before: Option<u64>,
    /// Until when, in seconds since 1970.
    pub not_after: Option<u64>,
    /// SHA-256 of each trusted root, in hexadecimal.
    pub roots: Vec<String>,
    /// Why the latest attempt failed, if it did.
    pub error: Option<String>,
}

/// Whether an identity can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum State {
    /// The first attempt has not ended.
    Initializing,
    /// A valid certificate is in hand.
    Available,
    /// There is none, and the latest attempt has failed.
    Unavailable,
}

impl CertStore {
    /// A store over `authority`, and the task that keeps it: spawn it on the control runtime. The
    /// task ends when the last handle is gone.
    pub fn new(
        authority: Arc<dyn Authority>,
        config: Config,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let published = Arc::new(Published::default());
        let refresh = Refresh::new(authority, config, Arc::clone(&published), receiver);
        (Self { published, commands }, refresh.run())
    }

    /// The valid certificate of `id`, asked for if need be.
    ///
    /// Concurrent callers share one attempt. After a failure callers get its error at once, until
    /// an attempt succeeds.
    ///
    /// # Errors
    /// The error of the attempt, or [`Error::Closed`] when the store's task has ended.
    ///
    /// # Cancel safety
    /// Safe: the attempt goes on for the others.
    pub async fn certificate(&self, id: &SpiffeId) -> Result<Arc<WorkloadCertificate>, Error> {
        if let Some(certificate) = self.latest(id) {
            return Ok(certificate);
        }
        let (reply, result) = oneshot::channel();
        let command =
            Command::Want { id: id.clone(), priority: Priority::OnDemand, reply: Some(reply) };
        self.commands.send(command).map_err(|_| Error::Closed)?;
        result.await.map_err(|_| Error::Closed)?
    }

    /// The valid certificate of `id`, if it is in hand. Takes no lock and asks nobody.
    pub fn latest(&self, id: &SpiffeId) -> Option<Arc<WorkloadCertificate>> {
        let published = self.published.load();
        let held = published.get(id)?.held.as_ref()?;
        held.is_valid(Instant::now()).then(|| Arc::clone(&held.certificate))
    }

    /// Asks for the certificate of `id` ahead of traffic, behind those that connections wait for.
    pub fn prefetch(&self, id: &SpiffeId) {
        let command = Command::Want { id: id.clone(), priority: Priority::Prefetch, reply: None };
        // A store whose task has ended has nothing to fetch for.
        let _ = self.commands.send(command);
    }

    /// Drops the certificate of `id`, and stops renewing it: the last pod with it has gone.
    pub fn forget(&self, id: &SpiffeId) {
        // A store whose task has ended renews nothing.
        let _ = self.commands.send(Command::Forget(id.clone()));
    }

    /// Every identity, sorted, for people.
    pub fn snapshot(&self) -> Vec<Snapshot> {
        let published = self.published.load();
        let mut all: Vec<_> = published.iter().map(|(id, one)| one.snapshot(id)).collect();
        all.sort_by(|a, b| a.identity.cmp(&b.identity));
        all
    }
}

impl Entry {
    /// The certificate, unless it has expired.
    pub(super) fn valid(&self, now: Instant) -> Option<&Arc<WorkloadCertificate>> {
        self.held.as_ref().filter(|held| held.is_valid(now)).map(|held| &held.certificate)
    }

    fn snapshot(&self, id: &SpiffeId) -> Snapshot {
        let certificate = self.held.as_ref().map(|held| &held.certificate);
        let seconds = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
        };
        let roots = certificate.map(|certificate| certificate.roots().digests());
        Snapshot {
            identity: id.clone(),
            state: match (self.valid(Instant::now()), &self.error) {
                (Some(_), _) => State::Available,
                (None, Some(_)) => State::Unavailable,
                (None, None) => State::Initializing,
            },
            serial: certificate.map(|certificate| certificate.serial().to_owned()),
            not_before: certificate.map(|certificate| seconds(certificate.not_before())),
            not_after: certificate.map(|certificate| seconds(certificate.not_after())),
            roots: roots.unwrap_or_default(),
            error: self.error.as_ref().map(|error| Chain(error).to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
