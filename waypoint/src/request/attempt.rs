//! From a request to an answer: endpoints in order of load, tried until one answers.
//!
//! Invariants: each attempt goes to another endpoint while there is one; a request that must not be
//! repeated has one answer, `DELIVERY_UNKNOWN`.
//! Not here: whether there is another attempt (`tries`, `resilience::retry`).
//! Source: design D8; Gateway API GEP-1731, GEP-1742.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use shared::authz::Permit;
use shared::mesh::{RetryConstraint, Service};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::cluster::{Cluster, Overflow, Report, Wish, Work};
use crate::metrics::Repetition;
use crate::outcome::Outcome;
use crate::request::body::{Body, RequestBody, Upstream};
use crate::request::replay::Repeated;
use crate::request::tries::{Next, Tries};
use crate::request::{Failure, Limits, Story};
use crate::resilience::budget::Budget;
use crate::resilience::retry::{self, Ended};
use crate::tunnel::Client;
use crate::upstream::{
    Endpoint, Failed, Lease, Reuse, SendError, Sent, Upgraded, Version, Way, send,
};

/// A request's ways.
pub(super) struct Attempts<'a> {
    pub(super) client: &'a Client,
    pub(super) permit: &'a Permit,
    pub(super) cluster: Rc<Cluster>,
    /// Which of its endpoints.
    pub(super) wish: Wish,
    pub(super) service: Option<&'a Arc<Service>>,
    pub(super) version: Version,
    pub(super) upgrade: bool,
    pub(super) limits: Limits<'a>,
}

/// The answer of an endpoint.
pub(super) struct Answered {
    pub(super) response: Response<Body>,
    pub(super) upgraded: Option<Upgraded>,
}

/// What an attempt came to.
enum Attempt {
    Answered(Sent, Work),
    Failed(Broken),
}

/// An attempt without an answer.
struct Broken {
    failure: Failure,
    ended: Ended,
    /// Given back when not a byte of it was sent.
    unsent: Option<Request<RequestBody>>,
}

impl Attempts<'_> {
    /// Tries endpoints until one answers.
    ///
    /// # Errors
    /// The failure of the last attempt, or that the time was over.
    pub(super) async fn run(
        self,
        request: Request<RequestBody>,
        story: &mut Story,
    ) -> Result<Answered, Failure> {
        let Some(limit) = self.limits.request else {
            return self.answered(request, story, None).await;
        };
        let deadline = Instant::now() + limit;
        match tokio::time::timeout_at(deadline, self.answered(request, story, Some(deadline))).await
        {
            Ok(answered) => answered,
            Err(_) => {
                if let Some(endpoint) = &story.endpoint {
                    self.cluster.given_up(endpoint, Instant::now());
                }
                Err(Failure::RequestTimeout(limit))
            }
        }
    }

    /// Sends a request once, for a mirror.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn once(
        self,
        request: Request<RequestBody>,
    ) -> Result<Response<Body>, Failure> {
        let endpoint = self.in_order(1).pop().ok_or_else(|| self.nobody())?;
        match self.attempt(endpoint, request, Reuse::Proven).await {
            Attempt::Answered(sent, work) => Ok(respond(sent, work, None).response),
            Attempt::Failed(broken) => Err(broken.failure),
        }
    }

    async fn answered(
        &self,
        request: Request<RequestBody>,
        story: &mut Story,
        deadline: Option<Instant>,
    ) -> Result<Answered, Failure> {
        let mut tries = Tries::new(self, deadline);
        // Those that failed come again after all others.
        let order = self.in_order(tries.most());
        let mut order = order.iter().copied().cycle();
        let mut endpoint = order.next().ok_or_else(|| self.nobody())?;
        let mut repeated = Repeated::new(request, self.upgrade);
        tries.announce(repeated.headers_mut());
        while let Some(request) = repeated.make() {
            story.attempt(tries.number(), endpoint);
            let reuse = tries.reuse(&repeated);
            let next = match self.attempt(endpoint, request, reuse).await {
                Attempt::Answered(sent, work) => {
                    let next = match retry::ended(&sent.response, self.limits.retry) {
                        None => return Ok(respond(sent, work, deadline)),
                        Some(ended) => tries.next(ended, &repeated, sent.response.headers()),
                    };
                    if let Next::Stop(why) = next {
                        let mut answered = respond(sent, work, deadline);
                        if let Some(why) = why {
                            story.pass_on(why, &mut answered.response);
                        }
                        return Ok(answered);
                    }
                    next
                }
                Attempt::Failed(Broken { failure, ended, unsent }) => {
                    if let Some(broken) = story.received.broken() {
                        return Err(broken.into());
                    }
                    if let Some(unsent) = unsent {
                        repeated.take_back(unsent);
                    }
                    match tries.next(ended, &repeated, &HeaderMap::new()) {
                        Next::Stop(Some(Outcome::RETRY_BUDGET_EXHAUSTED)) => {
                            return Err(Failure::BudgetExhausted(failure.into()));
                        }
                        Next::Stop(_) => return Err(failure),
                        next @ Next::After(_) => next,
                    }
                }
            };
            if let Next::After(wait) = next
                && !wait.is_zero()
            {
                sleep(wait).await;
            }
            tries.announce(repeated.headers_mut());
            endpoint = order.next().unwrap_or(endpoint);
        }
        // Only what is whole is tried again.
        Err(self.nobody())
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        request: Request<RequestBody>,
        reuse: Reuse,
    ) -> Attempt {
        let way = Way {
            client: self.client,
            permit: self.permit,
            endpoint,
            service: self.service.map(|service| &*service.key.hostname),
            cluster: &self.cluster,
        };
        let began = Instant::now();
        let mut work = match self.cluster.request(endpoint, began) {
            Ok(work) => work,
            Err(overflow) => return Attempt::Failed(overflow.into()),
        };
        let sending = send(way, self.version, self.upgrade, reuse, request);
        let sent = match self.limits.backend {
            None => sending.await,
            Some(limit) => match timeout(limit, sending).await {
                Ok(sent) => sent,
                Err(_) => {
                    let failure = Failure::BackendTimeout(limit);
                    work.timed_out(&self.cluster, Instant::now());
                    return Attempt::Failed(Broken { failure, ended: Ended::Late, unsent: None });
                }
            },
        };
        match sent {
            Ok(sent) => {
                let took = began.elapsed();
                work.answered(&self.cluster, &sent.response, took, Instant::now());
                Attempt::Answered(sent, work)
            }
            Err(failed) => {
                let broken = Broken::from(failed);
                match (&broken.failure, broken.ended) {
                    // Nobody failed, or nobody but us.
                    (Failure::Overflow(_), _) | (_, Ended::Stale) => {}
                    (Failure::Connect(_), Ended::Final) => {}
                    (Failure::Connect(error), _) => {
                        work.not_connected(error.gone(), Instant::now());
                    }
                    _ => work.failed(Report::Reset, Instant::now()),
                }
                Attempt::Failed(broken)
            }
        }
    }

    /// The budget of the destination; none where no service is meant, and there is one endpoint.
    pub(super) fn with_budget<T>(
        &self,
        use_it: impl FnOnce(&mut Budget, &RetryConstraint, Instant) -> T,
    ) -> Option<T> {
        let service = self.service?;
        let budgets = &self.client.worker.budgets;
        Some(budgets.lend(
            &service.key,
            service.retry_constraint.unwrap_or_default(),
            |budget, allowance| use_it(budget, allowance, Instant::now()),
        ))
    }

    /// Counts what became of a repetition.
    pub(super) fn count(&self, repetition: Repetition) {
        self.client.worker.node.repetitions.count(repetition, self.service.map(Arc::as_ref));
    }

    fn in_order(&self, most: u32) -> Vec<&Endpoint> {
        let most = self.cluster.endpoints().len().min(most as usize).max(1);
        self.cluster.order(self.wish, most, Instant::now())
    }

    fn nobody(&self) -> Failure {
        let name = self.service.map_or_else(|| "".into(), |service| service.key.hostname.clone());
        Failure::NoEndpoint(name)
    }
}

fn respond(sent: Sent, work: Work, deadline: Option<Instant>) -> Answered {
    let Sent { response, lease, upgraded, .. } = sent;
    let response = response.map(|body: Incoming| {
        // Nobody reads a body that is none, so its end is here.
        let lease = match body.is_end_stream() {
            true => lease.map(Lease::finish).and(None),
            false => lease,
        };
        Body::Upstream(Box::new(Upstream {
            body,
            lease,
            deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline))),
            work: Some(work),
        }))
    });
    Answered { response, upgraded }
}

impl From<Overflow> for Broken {
    fn from(overflow: Overflow) -> Self {
        // Whoever is full is not helped by being asked again.
        Self { failure: Failure::Overflow(overflow), ended: Ended::Final, unsent: None }
    }
}

impl From<Failed> for Broken {
    fn from(failed: Failed) -> Self {
        let Failed { error, unsent, reused, undelivered } = failed;
        let (failure, ended) = match error {
            SendError::Overflow(overflow) => return overflow.into(),
            SendError::Connect(error) if error.is_final() => {
                (Failure::Connect(error), Ended::Final)
            }
            SendError::Connect(error) => (Failure::Connect(error), Ended::Undelivered),
            SendError::Http(error) if unsent.is_some() && reused => {
                (Failure::Closed(error), Ended::Stale)
            }
            SendError::Http(error)
                if unsent.is_some() || undelivered || was_not_processed(&error) =>
            {
                (Failure::Closed(error), Ended::Undelivered)
            }
            SendError::Http(error) if error.is_parse() || error.is_parse_too_large() => {
                (Failure::Protocol(error), Ended::Final)
            }
            SendError::Http(error) => (Failure::DeliveryUnknown(error), Ended::Unknown { reused }),
        };
        Self { failure, ended, unsent }
    }
}

/// The other side says that it has not begun with the request: it reset its stream as refused
/// (RFC 9113 §8.7), or went away before it came to it (§6.8; h2 ends no other streams for a GOAWAY).
fn was_not_processed(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    source.and_then(|source| source.downcast_ref::<h2::Error>()).is_some_and(|error| {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (refused || error.is_go_away())
    })
}
