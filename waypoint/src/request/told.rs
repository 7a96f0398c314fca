//! What is told about a request: once, when its response has ended or was given up.

use std::borrow::Cow;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body::{Frame, SizeHint};
use shared::authz::Denial;
use shared::mesh::Service;
use tokio::time::Instant;

use crate::metrics::{self, FaultKind};
use crate::outcome::Outcome;
use crate::permits::Watch;
use crate::request::body::{Body, Error, Received};
use crate::request::{Failure, forward};
use crate::respond::{self, PROXY_STATUS};
use crate::router::Rule;
use crate::tunnel::Client;
use crate::upstream::Endpoint;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// A request, as it becomes known.
pub(crate) struct Story {
    pub(crate) client: Rc<Client>,
    pub(crate) started: Instant,
    pub(crate) method: Method,
    pub(crate) path: Box<str>,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) version: Version,
    pub(crate) is_grpc: bool,
    pub(crate) request_id: Option<HeaderValue>,
    /// Namespace and name of the route, and the rule's name.
    pub(crate) route: Option<Arc<str>>,
    /// The service that was chosen; the one that was asked for until then.
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) attempts: u32,
    pub(crate) failure: Option<(Outcome, String)>,
    pub(crate) status: u16,
    pub(crate) grpc_status: Option<Box<str>>,
    /// How long it was made to wait on purpose.
    delayed: Option<Duration>,
    /// The audit policies that it matches.
    pub(crate) audited: Option<Box<str>>,
    /// Ends the response when it is no longer allowed.
    pub(super) watch: Option<Watch>,
    pub(crate) received: Rc<Received>,
    pub(crate) response_bytes: u64,
    ended: bool,
}

impl Story {
    pub(super) fn begin<B>(client: &Rc<Client>, request: &Request<B>) -> Self {
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let authority = request.uri().authority();
        let named = authority.and_then(|name| HeaderValue::from_str(name.as_str()).ok());
        Self {
            client: Rc::clone(client),
            started: Instant::now(),
            method: request.method().clone(),
            path: path.into(),
            host: named.or_else(|| request.headers().get(HOST).cloned()),
            version: request.version(),
            is_grpc: is_grpc(request.headers()),
            request_id: None,
            route: None,
            service: client.target.service().cloned(),
            endpoint: None,
            attempts: 0,
            failure: None,
            status: 0,
            grpc_status: None,
            delayed: None,
            audited: None,
            watch: None,
            received: Rc::default(),
            response_bytes: 0,
            ended: false,
        }
    }

    pub(super) fn route(&mut self, rule: &Rule) {
        self.route = Some(Arc::clone(rule.label()));
    }

    /// It is made to wait.
    pub(super) fn delayed(&mut self, time: Duration) {
        self.delayed = Some(time);
    }

    /// Counts a failure that is made on purpose.
    pub(super) fn count_fault(&self, kind: FaultKind) {
        self.client.worker.node.faults.count(kind, self.service.as_deref());
    }

    /// Envoy's words for what happened to it.
    pub(crate) fn flags(&self) -> Option<Cow<'static, str>> {
        let failed = self.failure.as_ref().map(|(outcome, _)| outcome.flag());
        let delayed = self.delayed.map(|_| Outcome::FAULT_DELAYED.flag());
        match (delayed, failed) {
            // Envoy has no word for what policy denies.
            (Some(delayed), Some("-")) => Some(delayed.into()),
            (Some(delayed), Some(failed)) => Some(format!("{delayed},{failed}").into()),
            (delayed, failed) => failed.or(delayed).map(Cow::Borrowed),
        }
    }

    /// What it failed of; that it waited, when it did not fail.
    pub(crate) fn cause(&self) -> Option<(Outcome, Cow<'_, str>)> {
        let failed = self.failure.as_ref().map(|(outcome, text)| (*outcome, text.into()));
        failed.or_else(|| {
            let text = format!("delayed by {:?} on purpose", self.delayed?);
            Some((Outcome::FAULT_DELAYED, text.into()))
        })
    }

    pub(super) fn forwarded(&mut self, parts: &Parts) {
        self.request_id = parts.headers.get(forward::REQUEST_ID).cloned();
    }

    pub(super) fn attempt(&mut self, number: u32, endpoint: &Endpoint) {
        self.attempts = number;
        self.endpoint = Some(endpoint.clone());
    }

    pub(super) fn took(&self) -> Duration {
        self.started.elapsed()
    }

    /// The answer is ours.
    pub(crate) fn fail(&mut self, outcome: Outcome, failure: &Failure) {
        self.failure = Some((outcome, failure.to_string()));
    }

    /// The answer is an endpoint's, and the last of several, or the only one that there may be.
    pub(super) fn pass_on<B>(&mut self, why: Outcome, response: &mut Response<B>) {
        let text = format!("{} was the last answer", response.status());
        self.failure = Some((why, text));
        response.headers_mut().append(PROXY_STATUS, respond::proxy_status(why));
    }

    /// Tells the request when the body of its response has ended.
    pub(super) fn tell_after(mut self, response: Response<Body>) -> Response<Told> {
        self.status = response.status().as_u16();
        if self.is_grpc {
            self.learn_grpc_status(response.headers());
        }
        response.map(|body| Told { body, story: self })
    }

    fn learn_grpc_status(&mut self, headers: &HeaderMap) {
        let status = headers.get(GRPC_STATUS).and_then(|status| status.to_str().ok());
        // Two digits at most (gRPC status codes).
        if let Some(status) = status.filter(|text| text.len() <= 2) {
            self.grpc_status = Some(status.into());
        }
    }

    /// Why a response must not go on.
    fn denied(&mut self, waits: bool, cx: &Context<'_>) -> Option<Denial> {
        let watch = self.watch.as_mut()?;
        match waits {
            false => watch.denied(),
            true => match watch.poll_denied(cx) {
                Poll::Ready(denial) => Some(denial),
                Poll::Pending => None,
            },
        }
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            metrics::told(self);
        }
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if !self.ended {
            if self.failure.is_none() {
                let reason = "client left before the response had ended".to_owned();
                self.failure = Some((Outcome::CLIENT_GONE, reason));
            }
            self.end();
        }
    }
}

/// Whether a message is gRPC, by its content type.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A response's body, with the story that ends with it.
pub(crate) struct Told {
    body: Body,
    story: Story,
}

impl http_body::Body for Told {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(denial) = this.story.denied(polled.is_pending(), cx) {
            let denied = Failure::Revoked(denial);
            this.story.fail(Outcome::from(&denied), &denied);
            this.story.end();
            return Poll::Ready(Some(Err(denied.to_string().into())));
        }
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => this.story.end(),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.story.response_bytes += data.len() as u64;
                }
                if let Some(trailers) = frame.trailers_ref() {
                    this.story.learn_grpc_status(trailers);
                }
                if http_body::Body::is_end_stream(&this.body) {
                    this.story.end();
                }
            }
            Poll::Ready(Some(Err(error))) => {
                this.story.failure = Some((Outcome::UPSTREAM_CUT, error.to_string()));
                this.story.end();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // A body without frames is never polled.
        if http_body::Body::is_end_stream(&self.body) {
            self.story.end();
        }
    }
}
