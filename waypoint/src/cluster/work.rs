//! One try at an endpoint, from its choice to the end of the answer.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use shared::balance::{Gone, InFlight};
use shared::mesh::{TrafficPolicy, Uid};
use tokio::time::Instant;

use crate::cluster::{
    Cluster, Host, Overflow, Permit, Report, Resource, Sample, Standing, Verdict,
};
use crate::respond::RATE_LIMITED;
use crate::upstream::Endpoint;

/// A try that counts as work of its endpoint, and as a request of its destination, until this is
/// dropped.
#[must_use = "the try counts as work while this lives"]
pub(crate) struct Work {
    load: InFlight,
    _request: Option<Permit>,
    watch: Option<Box<Watch>>,
    /// Whose limit learns from the answer, and when the request was sent.
    adaptive: Option<(Arc<Standing>, Instant)>,
}

/// Who is to learn what came of a try.
struct Watch {
    standing: Arc<Standing>,
    policy: Arc<TrafficPolicy>,
    host: Arc<Host>,
    uid: Uid,
    is_probe: bool,
}

impl Cluster {
    /// A request is sent to `endpoint` now.
    ///
    /// # Errors
    /// There are as many requests as the rule allows.
    pub(crate) fn request(&self, endpoint: &Endpoint, now: Instant) -> Result<Work, Overflow> {
        let permit = match (self.circuit(), self.limits()) {
            (Some(circuit), Some(limits)) => {
                let adapted = self.adaptive().and_then(|standing| standing.adaptive.limit());
                Some(match adapted.filter(|most| limits.requests.is_none_or(|all| *most < all)) {
                    Some(most) => circuit.take(Resource::Concurrency, Some(most))?,
                    None => circuit.take(Resource::Requests, limits.requests)?,
                })
            }
            _ => None,
        };
        let mut work = self.work(endpoint, permit, now);
        work.adaptive = self.adaptive().map(|standing| (Arc::clone(standing), now));
        Ok(work)
    }

    /// A connection that is no HTTP is made to `endpoint` now.
    pub(crate) fn dial(&self, endpoint: &Endpoint, now: Instant) -> Work {
        self.work(endpoint, None, now)
    }

    fn work(&self, endpoint: &Endpoint, request: Option<Permit>, now: Instant) -> Work {
        let uid = &endpoint.workload.uid;
        let load = self.local.loads.start(uid, endpoint.address.port(), now);
        let watch = self.watch(endpoint, now).map(Box::new);
        Work { load, _request: request, watch, adaptive: None }
    }

    /// Tells of a try that nobody waits for any more, because it was not answered in time.
    pub(crate) fn given_up(&self, endpoint: &Endpoint, now: Instant) {
        if let Some(watch) = self.watch(endpoint, now).filter(|_| !self.is_full()) {
            watch.tell(Report::TimedOut, now);
        }
    }

    /// Whether a try may have waited for a connection instead of an answer: that is nobody's fault.
    fn is_full(&self) -> bool {
        let most = self.limits().and_then(|limits| limits.connections);
        let used = self.circuit().map(|circuit| circuit.used(Resource::Connections));
        most.is_some_and(|most| used.is_some_and(|used| used >= most))
    }

    fn watch(&self, endpoint: &Endpoint, now: Instant) -> Option<Watch> {
        self.outliers()?;
        let watched = self.watched(endpoint)?;
        let (host, uid) = (Arc::clone(&watched.host), watched.name.clone());
        let (standing, policy) = (Arc::clone(self.standing.as_ref()?), self.policy.clone()?);
        let is_probe = standing.outliers.probe(&host, now);
        Some(Watch { standing, policy, host, uid, is_probe })
    }
}

impl Work {
    /// The endpoint answered after `took`.
    pub(crate) fn answered<B>(
        &mut self,
        cluster: &Cluster,
        response: &Response<B>,
        took: Duration,
        now: Instant,
    ) {
        self.load.connected(Some(took), now);
        // A failure may be quick, which says nothing of what the endpoint is good for.
        if !response.status().is_server_error() {
            self.learn(took, now);
        }
        if self.watch.is_some() {
            let took = (!cluster.is_full()).then_some(took);
            self.tell(Report::Answered { status: status(response), took }, now);
        }
    }

    /// A connection that is no HTTP stands.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.load.connected(None, now);
        // Envoy: to a proxy of connections, one that stands is a good answer.
        self.tell(Report::Answered { status: 200, took: None }, now);
    }

    /// There was no answer in time.
    pub(crate) fn timed_out(mut self, cluster: &Cluster, now: Instant) {
        if let Some((_, sent)) = self.adaptive {
            self.learn(now.saturating_duration_since(sent), now);
        }
        if !cluster.is_full() {
            self.tell(Report::TimedOut, now);
        }
    }

    /// There was no connection, perhaps because nobody is there.
    pub(crate) fn not_connected(mut self, gone: Option<Gone>, now: Instant) {
        self.tell(Report::NotConnected, now);
        match gone {
            Some(what) => self.load.gone(what, now),
            None => self.load.failed(now),
        }
    }

    /// There was a connection, and no answer.
    pub(crate) fn failed(mut self, report: Report, now: Instant) {
        self.tell(report, now);
    }

    fn learn(&mut self, took: Duration, now: Instant) {
        if let Some((standing, sent)) = self.adaptive.take() {
            let used = standing.circuit.used(Resource::Requests);
            standing.adaptive.learn(Sample { sent, took, used }, now);
        }
    }

    fn tell(&mut self, report: Report, now: Instant) {
        if let Some(watch) = self.watch.take() {
            watch.tell(report, now);
        }
    }
}

/// The status; of a gRPC call that ended with its head, what its own status means in HTTP. A rate
/// limit that a proxy keeps in front of the application says nothing about its health.
fn status<B>(response: &Response<B>) -> u16 {
    if response.headers().contains_key(RATE_LIMITED) {
        return 429;
    }
    let grpc = response.headers().get("grpc-status").and_then(|status| status.to_str().ok());
    match grpc {
        // gRPC's table of statuses, as Envoy reads it: unknown, deadline exceeded, internal,
        // unavailable, data loss.
        Some("2" | "13" | "15") => 500,
        Some("4") => 504,
        Some("14") => 503,
        _ => response.status().as_u16(),
    }
}

impl Watch {
    fn tell(&self, report: Report, now: Instant) {
        let Some(config) = &self.policy.outliers else { return };
        let outliers = &self.standing.outliers;
        self.log(&self.uid, outliers.report(&self.host, report, config, now));
        for (uid, verdict) in outliers.sweep(config, now) {
            self.log(&uid, verdict);
        }
    }

    fn log(&self, endpoint: &Uid, verdict: Verdict) {
        let service = &self.standing;
        match verdict {
            Verdict::Nothing => {}
            Verdict::Ejected(reason, time) => {
                let (reason, time) = (reason.name(), time.as_secs_f64());
                tracing::warn!(%service, %endpoint, reason, seconds = time, "endpoint is ejected");
            }
            Verdict::TooMany(reason) => {
                let reason = reason.name();
                tracing::debug!(%service, %endpoint, reason, "too many are ejected already");
            }
            Verdict::Returned(reason) => {
                let reason = reason.name();
                tracing::info!(%service, %endpoint, reason, "endpoint is in again");
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.is_probe {
            self.host.probe_over();
        }
    }
}
