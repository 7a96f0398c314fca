//! The list of pods that should be served, made true again and again.
//!
//! ```text
//!            begin              started
//!  (absent) ──────► Starting ──────────► Up ──┐ leave: gone from the list, other namespace
//!                    ▲   │ failed             │
//!               retry│   ▼                    ▼        left
//!                    └─ Failed ─────────► Leaving ──────────► (absent)
//! ```
//! Invariants: one step at a time per pod; what the list says meanwhile is looked at when the step
//! is over; a pod that only changed is captured without a gap, by starting the new before the old ends.
//! Not here: the steps themselves (`enrol`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use shared::drain;
use shared::feed::LocalPod;
use shared::identity::{CertStore, SpiffeId, TrustDomain};
use shared::mesh::Uid;
use shared::workers::Workers;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::pods::enrol::{self, Enrolment, Error, Means, Place};
use crate::pods::share::Limits;
use crate::pods::status::{Entry, Problem, State};
use crate::pods::{PodName, Serve, Served, Status};
use crate::redirect::{Home, PROXY_MARK, Ports, Sockets, capture, netns, sockets};

/// What the pods of a node have in common.
#[derive(Debug, Clone)]
pub struct Config {
    /// Trust domain of the pods' identities.
    pub trust_domain: TrustDomain,
    /// Ports of the listeners; default 15001, 15006, 15008. Others are for tests.
    pub ports: Ports,
    /// How the proxy's sockets in the pods behave.
    pub sockets: sockets::Options,
    /// Serve only this pod (namespace, name), in the namespace of the process and without capture.
    pub dedicated: Option<(Arc<str>, Arc<str>)>,
    /// How often refused pods are tried again and namespaces looked after; default 5 s (Istio ztunnel).
    pub retry: Duration,
    /// What one pod may take of the node.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            ports: Ports::default(),
            sockets: sockets::Options::default(),
            dedicated: None,
            retry: Duration::from_secs(5),
            limits: Limits::default(),
        }
    }
}

/// Why no pod can be served at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process cannot switch network namespaces.
    #[error(
        "cannot switch network namespaces: needs CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW, or --dedicated"
    )]
    Namespaces(#[source] netns::Error),
    /// The process cannot mark packets, so its traffic would be captured again.
    #[error(
        "cannot mark packets: needs CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW, or --dedicated"
    )]
    Mark(#[source] io::Error),
}

/// Serves the pods of a node. Runs on the control thread.
pub struct Pods<S> {
    config: Config,
    means: Arc<Means<S>>,
    status: Status,
    served: Served,
    desired: BTreeMap<Uid, LocalPod>,
    slots: BTreeMap<Uid, Slot>,
    steps: JoinSet<Step>,
    /// Pods outside the mesh whose namespace was looked at for rules of an earlier process.
    swept: BTreeSet<Uid>,
    listed: bool,
}

struct Slot {
    local: LocalPod,
    place: Option<Place>,
    phase: Phase,
    problem: Option<Problem>,
}

enum Phase {
    /// The one that it replaces in the same namespace serves until then.
    Starting {
        previous: Option<Enrolment>,
    },
    Up(Enrolment),
    Failed,
    Leaving,
}

/// The end of something that ran beside the control loop.
enum Step {
    Started(Uid, Result<Enrolment, Error>),
    Left(Uid),
    Done,
}

impl<S: Serve> Pods<S> {
    /// Makes sure that pods can be served at all. `served` will hold those that are.
    ///
    /// # Errors
    /// [`StartError`] names the missing capabilities.
    pub fn new(
        config: Config,
        workers: Workers,
        certificates: CertStore,
        serve: Arc<S>,
        served: Served,
    ) -> Result<Self, StartError> {
        let home =
            Home::current().map_err(|error| StartError::Namespaces(netns::Error::Open(error)))?;
        if config.dedicated.is_none() {
            home.probe().map_err(StartError::Namespaces)?;
            Sockets::here(Some(PROXY_MARK)).probe().map_err(StartError::Mark)?;
        }
        let status = Status::new();
        let means = Arc::new(Means {
            limits: config.limits,
            shares: status.shares(),
            home,
            trust_domain: config.trust_domain.clone(),
            ports: config.ports,
            sockets: config.sockets,
            workers,
            certificates,
            serve,
        });
        Ok(Self {
            config,
            means,
            status,
            served,
            desired: BTreeMap::new(),
            slots: BTreeMap::new(),
            steps: JoinSet::new(),
            swept: BTreeSet::new(),
            listed: false,
        })
    }

    /// What is said about the pods; may be asked while [`Self::run`] runs.
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// Serves the pods that `local` lists until `process` drains: then closes the listeners at
    /// once, and ends when the connections have ended or are forced to. `process` waits for that.
    /// Capture rules stay in force.
    pub async fn run(
        mut self,
        mut local: watch::Receiver<Arc<Vec<LocalPod>>>,
        process: drain::Watch,
    ) {
        let guard = process.guard();
        let mut tick = tokio::time::interval(self.config.retry);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut draining = std::pin::pin!(process.draining());
        let mut feeding = true;
        local.mark_changed();
        loop {
            // All branches are cancel safe.
            tokio::select! {
                () = &mut draining => break,
                changed = local.changed(), if feeding => match changed {
                    Ok(()) => {
                        let pods = Arc::clone(&local.borrow_and_update());
                        self.list(&pods);
                    }
                    Err(_) => feeding = false,
                },
                Some(step) = self.steps.join_next() => self.after(step),
                _ = tick.tick() => self.look_after(),
            }
            self.publish();
        }
        self.drain(process).await;
        drop(guard);
    }

    fn list(&mut self, pods: &[LocalPod]) {
        let wanted = |pod: &&LocalPod| match &self.config.dedicated {
            Some((namespace, name)) => pod.namespace == *namespace && pod.name == *name,
            None => pod.enrolled,
        };
        self.desired =
            pods.iter().filter(wanted).map(|pod| (pod.uid.clone(), pod.clone())).collect();
        self.listed = true;
        let uids: BTreeSet<_> = self.slots.keys().chain(self.desired.keys()).cloned().collect();
        // Those that leave first: another pod may take over the namespace.
        let (stay, leave): (Vec<_>, Vec<_>) =
            uids.into_iter().partition(|uid| self.desired.contains_key(uid));
        leave.iter().chain(&stay).for_each(|uid| self.settle(uid));
        if self.config.dedicated.is_none() {
            self.sweep(pods);
        }
    }

    /// Takes the next step for one pod, if one is due and none is under way.
    fn settle(&mut self, uid: &Uid) {
        let wanted = self.desired.get(uid);
        match (self.slots.get(uid), wanted) {
            (None, Some(wanted)) => self.begin(wanted.clone(), None),
            (Some(slot), wanted) => match (&slot.phase, wanted) {
                (Phase::Up(_), Some(wanted)) if *wanted != slot.local => {
                    self.change(wanted.clone())
                }
                (Phase::Failed, Some(wanted)) if *wanted != slot.local => {
                    self.begin(wanted.clone(), None);
                }
                (Phase::Up(_) | Phase::Failed, None) => self.leave(uid),
                _ => {}
            },
            (None, None) => {}
        }
    }

    fn begin(&mut self, local: LocalPod, previous: Option<Enrolment>) {
        let uid = local.uid.clone();
        let earlier = self.slots.remove(&uid).and_then(|slot| slot.problem);
        let mut slot = Slot {
            place: None,
            phase: Phase::Starting { previous },
            problem: earlier,
            local: local.clone(),
        };
        match self.open(&local) {
            Ok(place) => {
                slot.place = Some(place.clone());
                let start = Enrolment::start(local, place, Arc::clone(&self.means));
                let task = uid.clone();
                self.steps.spawn(async move { Step::Started(task, start.await) });
                self.slots.insert(uid, slot);
            }
            Err(error) => {
                self.slots.insert(uid.clone(), slot);
                self.failed(&uid, &error);
            }
        }
    }

    /// Opens the pod's namespace, unless another pod has it.
    fn open(&self, local: &LocalPod) -> Result<Place, Error> {
        if self.config.dedicated.is_some() {
            return Ok(Place::Here);
        }
        let place = enrol::open(local, &self.means.home)?;
        let same = |(uid, slot): &(&Uid, &Slot)| {
            **uid != local.uid && slot.place.as_ref().and_then(Place::id) == place.id()
        };
        match self.slots.iter().find(same) {
            Some((uid, _)) => Err(Error::Taken(uid.clone())),
            None => Ok(place),
        }
    }

    /// The pod is described differently: in the same namespace the new takes over from the old.
    fn change(&mut self, wanted: LocalPod) {
        let uid = wanted.uid.clone();
        let Some(slot) = self.slots.get_mut(&uid) else { return };
        let held = slot.place.as_ref().and_then(Place::id);
        let stays = match wanted.netns.as_deref().map(netns::id_at) {
            Some(Ok(id)) => Some(id) == held,
            Some(Err(_)) => false,
            None => self.config.dedicated.is_some(),
        };
        if !stays {
            return self.leave(&uid);
        }
        if let Phase::Up(previous) = mem::replace(&mut slot.phase, Phase::Failed) {
            self.begin(wanted, Some(previous));
        }
    }

    fn leave(&mut self, uid: &Uid) {
        let Some(slot) = self.slots.get_mut(uid) else { return };
        let (phase, place) = (mem::replace(&mut slot.phase, Phase::Leaving), slot.place.clone());
        let uid = uid.clone();
        match phase {
            Phase::Up(enrolment) => {
                tracing::info!(pod = %enrolment.pod.workload, "pod leaves");
                self.status.stopped();
                self.steps.spawn(async move {
                    enrolment.withdraw().await;
                    Step::Left(uid)
                });
            }
            // It may have been served before, by us or an earlier process.
            _ => {
                self.steps.spawn(async move {
                    if let Some(Place::Namespace(namespace)) = place {
                        let removed = enrol::blocking(move || capture::remove(&namespace)).await;
                        if let Err(error) = removed {
                            tracing::warn!(%uid, %error, "capture rules could not be removed");
                        }
                    }
                    Step::Left(uid)
                });
            }
        }
    }

    fn after(&mut self, step: Result<Step, tokio::task::JoinError>) {
        match step {
            Ok(Step::Started(uid, result)) => {
                self.started(&uid, result);
                self.settle(&uid);
            }
            Ok(Step::Left(uid)) => {
                if let Some(slot) = self.slots.remove(&uid) {
                    self.forget_certificate(&slot.local);
                }
                self.settle(&uid);
                // Its namespace or ports may be what others wait for.
                self.retry();
            }
            Ok(Step::Done) => {}
            Err(error) => tracing::error!(%error, "enrolment task failed"),
        }
    }

    fn started(&mut self, uid: &Uid, result: Result<Enrolment, Error>) {
        let Some(slot) = self.slots.get_mut(uid) else { return };
        let phase = mem::replace(&mut slot.phase, Phase::Failed);
        if let Phase::Starting { previous: Some(previous) } = phase {
            // Without a successor it ends too: what it stood for is no longer so. Rules stay.
            self.steps.spawn(async move {
                previous.close().await;
                Step::Done
            });
        }
        match result {
            Ok(enrolment) => {
                tracing::info!(pod = %enrolment.pod.workload, "pod is served");
                slot.phase = Phase::Up(enrolment);
                slot.problem = None;
                self.status.started();
            }
            Err(error) => self.failed(uid, &error),
        }
    }

    fn failed(&mut self, uid: &Uid, error: &Error) {
        let Some(slot) = self.slots.get_mut(uid) else { return };
        let problem = Problem::from(error);
        if slot.problem.as_ref() != Some(&problem) {
            tracing::warn!(pod = %format_args!("{}/{}", slot.local.namespace, slot.local.name),
                cause = problem.cause, reason = problem.reason, retry = ?self.config.retry,
                "pod is not served");
        }
        slot.phase = Phase::Failed;
        slot.problem = Some(problem);
    }

    /// Tries refused pods again, and lets go of namespaces that have vanished.
    fn look_after(&mut self) {
        let vanished = |slot: &Slot| {
            let Some(path) = slot.local.netns.as_deref() else { return false };
            let Some(held) = slot.place.as_ref().and_then(Place::id) else { return false };
            matches!(slot.phase, Phase::Up(_)) && !netns::id_at(path).is_ok_and(|id| id == held)
        };
        let gone: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| vanished(slot))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in gone {
            tracing::warn!(%uid, "the pod's network namespace has vanished");
            self.leave(&uid);
        }
        self.retry();
    }

    fn retry(&mut self) {
        let failed = |(uid, slot): (&Uid, &Slot)| {
            matches!(slot.phase, Phase::Failed).then(|| self.desired.get(uid).cloned())?
        };
        let failed: Vec<_> = self.slots.iter().filter_map(failed).collect();
        failed.into_iter().for_each(|local| self.begin(local, None));
    }

    /// The pod's certificate goes with the last pod that has its identity.
    fn forget_certificate(&self, left: &LocalPod) {
        let identity = self.identity(left);
        if self.slots.values().all(|slot| self.identity(&slot.local) != identity)
            && let Some(identity) = identity
        {
            self.means.certificates.forget(&identity);
        }
    }

    fn identity(&self, local: &LocalPod) -> Option<SpiffeId> {
        let domain = self.config.trust_domain.clone();
        SpiffeId::new(domain, &local.namespace, &local.service_account).ok()
    }

    /// Removes rules that an earlier process left in pods which are no longer in the mesh.
    fn sweep(&mut self, pods: &[LocalPod]) {
        let outside: BTreeSet<_> =
            pods.iter().filter(|pod| !pod.enrolled).map(|pod| pod.uid.clone()).collect();
        self.swept.retain(|uid| outside.contains(uid));
        for pod in pods.iter().filter(|pod| !pod.enrolled && pod.netns.is_some()) {
            if self.slots.contains_key(&pod.uid) || !self.swept.insert(pod.uid.clone()) {
                continue;
            }
            // Whoever is not that pod's own namespace is not touched.
            let Ok(Place::Namespace(namespace)) = self.open(pod) else { continue };
            if pod.ips.is_empty() {
                continue;
            }
            let uid = pod.uid.clone();
            self.steps.spawn(async move {
                let cleared = enrol::blocking(move || {
                    let captured = capture::is_captured(&namespace)?;
                    if captured { capture::remove(&namespace).map(|()| true) } else { Ok(false) }
                });
                match cleared.await {
                    Ok(true) => tracing::info!(%uid, "removed capture from a pod outside the mesh"),
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%uid, %error, "cannot look for capture rules"),
                }
                Step::Done
            });
        }
    }

    fn publish(&self) {
        let entry = |slot: &Slot| Entry {
            state: if matches!(slot.phase, Phase::Up(_)) { State::Up } else { State::Pending },
            info: PodName {
                namespace: Arc::clone(&slot.local.namespace),
                name: Arc::clone(&slot.local.name),
                service_account: Arc::clone(&slot.local.service_account),
            },
            network_namespace: slot.place.as_ref().and_then(Place::id),
            problem: slot.problem.clone(),
        };
        let entries = self.slots.iter().map(|(uid, slot)| (uid.clone(), entry(slot))).collect();
        self.status.publish(entries, self.listed);
        let up = self.slots.values().filter_map(|slot| match &slot.phase {
            Phase::Up(enrolment) => Some(Arc::clone(&enrolment.pod)),
            _ => None,
        });
        self.served.publish(up);
    }

    /// Closes every listener at once and waits for the connections. Rules stay.
    async fn drain(mut self, process: drain::Watch) {
        let slots = mem::take(&mut self.slots);
        self.served.publish([]);
        let running = slots.into_values().flat_map(|slot| match slot.phase {
            Phase::Up(enrolment) => Some(enrolment),
            Phase::Starting { previous } => previous,
            Phase::Failed | Phase::Leaving => None,
        });
        for enrolment in running {
            self.steps.spawn(finish(enrolment, process.forced()));
        }
        let mut forced = std::pin::pin!(process.forced());
        let mut late = false;
        while !self.steps.is_empty() {
            tokio::select! {
                step = self.steps.join_next() => match step {
                    // It was being enrolled when the end began.
                    Some(Ok(Step::Started(_, Ok(enrolment)))) => {
                        self.steps.spawn(finish(enrolment, process.forced()));
                    }
                    Some(Err(error)) => tracing::error!(%error, "drain task failed"),
                    _ => {}
                },
                () = &mut forced, if !late => late = true,
                // `finish` has its own grace; an enrolment that waits for a certificate has none.
                () = tokio::time::sleep(FORCED_GRACE), if late => break,
            }
        }
    }
}

/// After the process was forced, steps that do not end are left behind.
const FORCED_GRACE: Duration = Duration::from_secs(1);

async fn finish(enrolment: Enrolment, forced: drain::Reached) -> Step {
    enrolment.drain(forced).await;
    Step::Done
}
