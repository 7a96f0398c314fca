//! From a request to an answer: endpoints in order of load, tried until one answers.
//!
//! Invariants: what was not sent may go to another endpoint, at most three; what may have been
//! delivered is repeated only if its method is idempotent or the route's owner allowed it; a request
//! that must not be repeated has one answer, `DELIVERY_UNKNOWN`.
//! Source: design D8; RFC 9110 §9.2.2; Gateway API GEP-1731, GEP-1742.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use shared::balance::InFlight;
use shared::mesh::Service;
use tokio::time::{Instant, sleep_until, timeout};

use crate::request::body::{Body, RequestBody, Upstream};
use crate::request::replay::Repeated;
use crate::request::{Failure, Limits, Story, forward};
use crate::resilience::retry::{self, Ended, Terms, Verdict};
use crate::tunnel::Client;
use crate::upstream::{Endpoint, Failed, Reuse, SendError, Sent, Upgraded, Version, Way, send};

/// Design D8: endpoints tried for what was not delivered, unless the route says how many.
const TRIES: u32 = 3;
/// The same with connections that had been closed while they rested.
const TRIES_WITH_STALE: u32 = 6;

/// A request's ways.
pub(super) struct Attempts<'a> {
    pub(super) client: &'a Client,
    pub(super) endpoints: Rc<[Endpoint]>,
    /// The one that a session is with, to be tried before the others.
    pub(super) first: Option<SocketAddr>,
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
    Answered(Sent, InFlight),
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
            Err(_) => Err(Failure::RequestTimeout(limit)),
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
        let mut most = self.limits.retry.map_or(TRIES, |retry| retry.attempts.saturating_add(1));
        let mut order = self.in_order(most).into_iter();
        let mut endpoint = order.next().ok_or_else(|| self.nobody())?;
        let mut repeated = Repeated::new(request, self.upgrade);
        let mut number = 1;
        let mut last = None;
        while let Some(request) = repeated.make() {
            story.attempt(number, endpoint);
            let attempt = self.attempt(endpoint, request, self.reuse(&repeated)).await;
            let (ended, failure) = match attempt {
                Attempt::Answered(sent, work) => {
                    let again = self.is_retried(sent.status()) && number < most;
                    if !(again && self.is_repeated(Ended::Answered, &repeated)) {
                        return Ok(respond(sent, work, deadline));
                    }
                    (Ended::Answered, None)
                }
                Attempt::Failed(Broken { failure, ended, unsent }) => {
                    if let Some(broken) = story.received.broken() {
                        return Err(broken.into());
                    }
                    if let Some(unsent) = unsent {
                        repeated.take_back(unsent);
                    }
                    (ended, Some(failure))
                }
            };
            if ended == Ended::Stale && most < TRIES_WITH_STALE {
                // Nobody was asked.
                most += 1;
            }
            if let Some(failure) = failure {
                if number >= most || !self.is_repeated(ended, &repeated) {
                    return Err(failure);
                }
                last = Some(failure);
            }
            number += 1;
            forward::attempt(repeated.headers_mut(), number);
            if let Some(backoff) = self.limits.retry.and_then(|retry| retry.backoff) {
                sleep_until(Instant::now() + backoff).await;
            }
            endpoint = order.next().unwrap_or(endpoint);
        }
        Err(last.unwrap_or_else(|| self.nobody()))
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        request: Request<RequestBody>,
        reuse: Reuse,
    ) -> Attempt {
        let way = Way {
            client: self.client,
            endpoint,
            service: self.service.map(|service| &*service.key.hostname),
        };
        let began = Instant::now();
        let mut work = self.client.worker.loads.start(&endpoint.workload.uid, began);
        let sending = send(way, self.version, self.upgrade, reuse, request);
        let sent = match self.limits.backend {
            None => sending.await,
            Some(limit) => match timeout(limit, sending).await {
                Ok(sent) => sent,
                Err(_) => {
                    let failure = Failure::BackendTimeout(limit);
                    return Attempt::Failed(Broken { failure, ended: Ended::Late, unsent: None });
                }
            },
        };
        match sent {
            Ok(sent) => {
                work.connected(Some(began.elapsed()), Instant::now());
                Attempt::Answered(sent, work)
            }
            Err(failed) => {
                let broken = Broken::from(failed);
                if matches!(broken.failure, Failure::Connect(_)) && broken.ended != Ended::Final {
                    work.failed(Instant::now());
                }
                Attempt::Failed(broken)
            }
        }
    }

    /// A connection that rested may be closed just as it is used.
    fn reuse(&self, repeated: &Repeated) -> Reuse {
        let stale = Ended::Unknown { reused: true };
        if self.is_repeated(stale, repeated) { Reuse::Any } else { Reuse::Proven }
    }

    /// Whether a request that ended so may be sent again, and can be.
    fn is_repeated(&self, ended: Ended, repeated: &Repeated) -> bool {
        let retry = self.limits.retry;
        let terms = Terms {
            idempotent: retry::is_idempotent(repeated.head().method()) && !self.upgrade,
            opted_in: retry.is_some_and(|retry| retry.delivered) && !self.upgrade,
            asked: retry.is_some(),
            whole: repeated.is_whole(),
        };
        matches!(retry::verdict(ended, terms), Verdict::Safe | Verdict::OptedIn)
    }

    fn is_retried(&self, status: StatusCode) -> bool {
        self.limits.retry.is_some_and(|retry| retry.codes.contains(&status.as_u16()))
    }

    fn in_order(&self, most: u32) -> Vec<&Endpoint> {
        let random = &mut fastrand::Rng::new();
        let loads = &self.client.worker.loads;
        let (first, others): (Vec<_>, Vec<_>) =
            self.endpoints.iter().partition(|one| Some(one.address) == self.first);
        let most = most as usize;
        let others =
            loads.order(others, |one: &&Endpoint| &one.workload, most, random, Instant::now());
        [first, others].concat()
    }

    fn nobody(&self) -> Failure {
        let name = self.service.map_or_else(|| "".into(), |service| service.key.hostname.clone());
        Failure::NoEndpoint(name)
    }
}

fn respond(sent: Sent, work: InFlight, deadline: Option<Instant>) -> Answered {
    let Sent { response, lease, upgraded, .. } = sent;
    let response = response.map(|body: Incoming| {
        Body::Upstream(Box::new(Upstream {
            body,
            lease,
            deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline))),
            work: Some(work),
        }))
    });
    Answered { response, upgraded }
}

impl From<Failed> for Broken {
    fn from(failed: Failed) -> Self {
        let Failed { error, unsent, reused } = failed;
        let (failure, ended) = match error {
            SendError::Connect(error) if error.is_final() => {
                (Failure::Connect(error), Ended::Final)
            }
            SendError::Connect(error) => (Failure::Connect(error), Ended::Undelivered),
            SendError::Http(error) if unsent.is_some() && reused => {
                (Failure::Closed(error), Ended::Stale)
            }
            SendError::Http(error) if unsent.is_some() || was_not_processed(&error) => {
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
