//! From a request to an answer: endpoints in order of load, tried until one answers.
//!
//! Invariants: what was not sent may go to another endpoint, at most three; what may have been
//! delivered is repeated only if its method is idempotent or the route's owner allowed it; a request
//! that must not be repeated has one answer, `DELIVERY_UNKNOWN`.
//! Source: design D8; RFC 9110 §9.2.2; Gateway API GEP-1731, GEP-1742.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use shared::balance::InFlight;
use shared::mesh::Service;
use tokio::time::{Instant, sleep_until, timeout};

use crate::request::body::{Body, RequestBody, Upstream};
use crate::request::{Failure, Limits, Story, forward};
use crate::tunnel::Client;
use crate::upstream::{Endpoint, Failed, Reuse, SendError, Sent, Upgraded, Version, Way, send};

/// Design D8: endpoints tried for what was not delivered.
const TRIES: u32 = 3;

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
    /// Why not, and the request if it can be sent again.
    Failed(Failure, Option<Request<RequestBody>>),
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
        match self.attempt(endpoint, request, false).await {
            Attempt::Answered(sent, work) => Ok(respond(sent, work, None).response),
            Attempt::Failed(failure, _) => Err(failure),
        }
    }

    async fn answered(
        &self,
        request: Request<RequestBody>,
        story: &mut Story,
        deadline: Option<Instant>,
    ) -> Result<Answered, Failure> {
        let most =
            self.limits.retry.map_or(TRIES, |retry| TRIES.max(retry.attempts.saturating_add(1)));
        let mut order = self.in_order(most).into_iter();
        let mut endpoint = order.next().ok_or_else(|| self.nobody())?;
        let mut request = request;
        let mut number = 1;
        loop {
            story.attempt(number, endpoint);
            let repeatable = self.is_repeatable(&request);
            match self.attempt(endpoint, request, repeatable).await {
                Attempt::Answered(sent, work) => match sent.again {
                    Some(again) if number < most && self.is_retried(sent.status()) => {
                        request = again
                    }
                    _ => return Ok(respond(sent, work, deadline)),
                },
                Attempt::Failed(failure, again) => match (story.received.broken(), again) {
                    (Some(broken), _) => return Err(broken.into()),
                    (None, Some(again)) if number < most => request = again,
                    (None, _) => return Err(failure),
                },
            }
            number += 1;
            forward::attempt(request.headers_mut(), number);
            if let Some(backoff) = self.limits.retry.and_then(|retry| retry.backoff) {
                sleep_until(Instant::now() + backoff).await;
            }
            endpoint = order.next().unwrap_or(endpoint);
        }
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        request: Request<RequestBody>,
        repeatable: bool,
    ) -> Attempt {
        let way = Way {
            client: self.client,
            endpoint,
            service: self.service.map(|service| &*service.key.hostname),
        };
        let copied = request.body().is_empty() && !self.upgrade;
        let again = copied.then(|| copy(&request));
        let began = Instant::now();
        let mut work = self.client.worker.loads.start(&endpoint.workload.uid, began);
        let reuse = if repeatable { Reuse::Any } else { Reuse::Proven };
        let sending = send(way, self.version, self.upgrade, reuse, request);
        let sent = match self.limits.backend {
            None => sending.await,
            Some(limit) => match timeout(limit, sending).await {
                Ok(sent) => sent,
                Err(_) => {
                    let again = again.filter(|_| repeatable && self.limits.retry.is_some());
                    return Attempt::Failed(Failure::BackendTimeout(limit), again);
                }
            },
        };
        match sent {
            Ok(sent) => {
                work.connected(Some(began.elapsed()), Instant::now());
                Attempt::Answered(Sent { again: again.filter(|_| repeatable), ..sent }, work)
            }
            Err(Failed { error: SendError::Connect(error), unsent, .. }) => {
                work.failed(Instant::now());
                Attempt::Failed(Failure::Connect(error), unsent)
            }
            Err(Failed { error: SendError::Http(error), unsent, .. }) if unsent.is_some() => {
                Attempt::Failed(Failure::Closed(error), unsent)
            }
            Err(Failed { error: SendError::Http(error), reused, .. }) => {
                self.unanswered(error, again, repeatable, reused)
            }
        }
    }

    /// A connection that ended before an answer came.
    fn unanswered(
        &self,
        error: hyper::Error,
        again: Option<Request<RequestBody>>,
        repeatable: bool,
        reused: bool,
    ) -> Attempt {
        if error.is_parse() || error.is_parse_too_large() {
            return Attempt::Failed(Failure::Protocol(error), None);
        }
        let source = std::error::Error::source(&error);
        let stream = source.and_then(|source| source.downcast_ref::<h2::Error>());
        let told = |what: fn(&h2::Error) -> bool| {
            stream.is_some_and(|error| error.is_remote() && what(error))
        };
        // RFC 9113 §8.7: the stream was closed before anything was processed.
        if told(|error| error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)) {
            return Attempt::Failed(Failure::Closed(error), again);
        }
        // The other side may have closed a connection that rested, just as it was used; after GOAWAY
        // h2 does not tell which of the requests were counted.
        let ending = reused || told(h2::Error::is_go_away);
        let again = again.filter(|_| repeatable && (ending || self.limits.retry.is_some()));
        Attempt::Failed(Failure::DeliveryUnknown(error), again)
    }

    /// Whether a request that was delivered may be sent again, and can be.
    fn is_repeatable(&self, request: &Request<RequestBody>) -> bool {
        let allowed = self.limits.retry.is_some_and(|retry| retry.delivered);
        request.body().is_empty() && !self.upgrade && (allowed || is_idempotent(request.method()))
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

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// The same request; it has no body.
fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}
