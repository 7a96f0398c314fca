//! The task behind a [`CertStore`](super::CertStore): makes attempts, publishes results.

use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, Abortable, Aborted, BoxFuture};
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{self, Instant};
use tracing::{debug, info, warn};

use super::schedule::{Config, Priority, Schedule, Ticket};
use super::store::{Entry, Held, Published};
use super::{Authority, Error, SpiffeId, WorkloadCertificate};
use crate::chain::Chain;

type Reply = oneshot::Sender<Result<Arc<WorkloadCertificate>, Error>>;

/// What handles ask of the task.
pub(super) enum Command {
    Want { id: SpiffeId, priority: Priority, reply: Option<Reply> },
    Forget(SpiffeId),
}

/// One attempt that has ended.
struct Attempt {
    id: SpiffeId,
    ticket: Ticket,
    result: Result<WorkloadCertificate, Error>,
}

/// See the module.
pub(super) struct Refresh {
    authority: Arc<dyn Authority>,
    schedule: Schedule,
    entries: HashMap<SpiffeId, Entry>,
    published: Arc<Published>,
    commands: mpsc::UnboundedReceiver<Command>,
    waiting: HashMap<SpiffeId, Vec<Reply>>,
    attempts: FuturesUnordered<BoxFuture<'static, Result<Attempt, Aborted>>>,
    aborts: HashMap<Ticket, AbortHandle>,
}

impl Refresh {
    pub(super) fn new(
        authority: Arc<dyn Authority>,
        config: Config,
        published: Arc<Published>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Self {
            authority,
            schedule: Schedule::new(config),
            entries: HashMap::new(),
            published,
            commands,
            waiting: HashMap::new(),
            attempts: FuturesUnordered::new(),
            aborts: HashMap::new(),
        }
    }

    /// Runs until the last handle is gone.
    pub(super) async fn run(mut self) {
        let mut changes = self.authority.changes();
        loop {
            self.start_attempts();
            let deadline = self.schedule.deadline();
            // Cancel safety: `recv`, `next`, `changed` and `sleep_until` lose nothing when dropped.
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(ended) = self.attempts.next(), if !self.attempts.is_empty() => {
                    // One that was broken off has been accounted for by `forget`.
                    if let Ok(attempt) = ended {
                        self.conclude(attempt);
                    }
                }
                () = changed(&mut changes) => self.schedule.refresh_all(Instant::now()),
                () = at(deadline) => {}
            }
        }
    }

    fn start_attempts(&mut self) {
        let now = Instant::now();
        while let Some((id, ticket)) = self.schedule.start(now) {
            let authority = Arc::clone(&self.authority);
            let limit = self.schedule.limit(&id, now);
            let (abort, registration) = AbortHandle::new_pair();
            let attempt = async move {
                let result = time::timeout(limit, authority.issue(&id)).await;
                let result = result.unwrap_or(Err(Error::Timeout(limit)));
                Attempt { id, ticket, result }
            };
            self.aborts.insert(ticket, abort);
            self.attempts.push(Box::pin(Abortable::new(attempt, registration)));
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Want { id, priority, reply } => self.want(id, priority, reply),
            Command::Forget(id) => {
                if let Some(abort) =
                    self.schedule.forget(&id).and_then(|ticket| self.aborts.remove(&ticket))
                {
                    abort.abort();
                }
                // Who still waits learns that the answer will not come.
                self.waiting.remove(&id);
                self.entries.remove(&id);
                self.publish();
            }
        }
    }

    fn want(&mut self, id: SpiffeId, priority: Priority, reply: Option<Reply>) {
        let now = Instant::now();
        if self.entries.get(&id).is_some_and(|entry| entry.valid(now).is_none()) {
            // The machine has slept; to the timers there is much time left.
            self.schedule.expire(&id, now);
        }
        self.schedule.want(&id, priority, now);
        let (entry, is_new) = match self.entries.entry(id.clone()) {
            hash_map::Entry::Occupied(known) => (known.into_mut(), false),
            hash_map::Entry::Vacant(unknown) => (unknown.insert(Entry::default()), true),
        };
        if let Some(reply) = reply {
            // A caller that has gone away needs no answer.
            match (entry.valid(now), &entry.error) {
                (Some(certificate), _) => drop(reply.send(Ok(Arc::clone(certificate)))),
                (None, Some(error)) => drop(reply.send(Err(error.clone()))),
                (None, None) => self.waiting.entry(id).or_default().push(reply),
            }
        }
        if is_new {
            self.publish();
        }
    }

    fn conclude(&mut self, Attempt { id, ticket, result }: Attempt) {
        self.aborts.remove(&ticket);
        let now = Instant::now();
        let result = result.and_then(|certificate| check(certificate, &id));
        let wanted = match &result {
            Ok(certificate) => {
                let remaining = certificate.remaining(SystemTime::now());
                self.schedule.succeeded((&id, ticket), remaining, now, fastrand::f64())
            }
            Err(_) => self.schedule.failed((&id, ticket), now, fastrand::f64()),
        };
        if !wanted {
            return;
        }
        let entry = self.entries.entry(id.clone()).or_default();
        match result {
            Ok(certificate) => entry.renew(certificate, now),
            Err(error) => {
                let valid = entry.valid(now).is_some();
                warn!(identity = %id, error = %Chain(&error), valid, "no new certificate");
                entry.error = Some(error);
            }
        }
        for reply in self.waiting.remove(&id).unwrap_or_default() {
            // A caller that has gone away needs no answer.
            drop(match (entry.valid(now), &entry.error) {
                (Some(certificate), _) => reply.send(Ok(Arc::clone(certificate))),
                (None, error) => reply.send(Err(error.clone().unwrap_or(Error::Closed))),
            });
        }
        self.publish();
    }

    fn publish(&self) {
        self.published.store(Arc::new(self.entries.clone()));
    }
}

impl Entry {
    fn renew(&mut self, certificate: WorkloadCertificate, now: Instant) {
        let (identity, serial) = (certificate.identity(), certificate.serial());
        let remaining = certificate.remaining(SystemTime::now());
        self.error = None;
        match &self.held {
            // Files read again: keep the one whose configurations are built.
            Some(held) if held.certificate.is_same(&certificate) => return,
            None => info!(%identity, serial, ?remaining, "certificate received"),
            Some(_) => debug!(%identity, serial, ?remaining, "certificate renewed"),
        }
        self.held = Some(Held { certificate: Arc::new(certificate), expires: now + remaining });
    }
}

/// What an authority must not get wrong.
fn check(certificate: WorkloadCertificate, id: &SpiffeId) -> Result<WorkloadCertificate, Error> {
    if certificate.identity() != id {
        let found = certificate.identity().clone();
        return Err(Error::Mismatch { id: id.clone(), found });
    }
    if certificate.remaining(SystemTime::now()).is_zero() {
        return Err(Error::Expired(id.clone()));
    }
    Ok(certificate)
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = changes {
        if receiver.changed().await.is_ok() {
            return;
        }
        *changes = None;
    }
    std::future::pending().await
}
