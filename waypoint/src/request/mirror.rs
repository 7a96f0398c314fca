//! Copies of requests to other services, whose answers nobody sees.
//!
//! Invariants: a mirror never slows the original: a copy that falls behind is cut short, and what
//! becomes of it changes nothing.
//! Source: Gateway API HTTPRequestMirrorFilter; spec L7 §3.9.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http::request::Parts;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use shared::authz::Permit;
use shared::mesh::Mesh;
use tokio::sync::mpsc;

use crate::cluster::Wish;
use crate::filters::Mirror;
use crate::request::attempt::Attempts;
use crate::request::body::{Error, Received};
use crate::request::{Limits, RequestBody, aim};
use crate::router::Matched;
use crate::tunnel::Client;
use crate::upstream::Version;

/// Frames that a copy may be behind: 1 MiB at 16 KiB each.
const MOST_FRAMES_BEHIND: usize = 64;

/// A body of which others get a copy.
#[derive(Debug)]
pub(crate) struct Original {
    body: Incoming,
    received: Rc<Received>,
    copies: Vec<mpsc::Sender<Part>>,
}

/// A copy of a body. Its original's end is its end; cut short when it falls behind.
#[derive(Debug)]
pub(crate) struct Copied {
    parts: mpsc::Receiver<Part>,
    length: SizeHint,
}

/// A part of a body that is copied.
#[derive(Debug)]
enum Part {
    Data(Bytes),
    End,
}

/// The copy fell behind, or its original was cut.
#[derive(Debug, thiserror::Error)]
#[error("copy of a request was cut short")]
struct CutShort;

/// Starts the mirrors of the rule that want this request, and gives the body back to be sent.
pub(super) fn start(
    client: &Rc<Client>,
    permit: &Permit,
    mesh: &Mesh,
    matched: &Matched<'_>,
    parts: &Parts,
    body: RequestBody,
) -> RequestBody {
    let mirrors = matched.rule.filters.mirrors.iter();
    let wanted: Vec<&Mirror> = mirrors.filter(|mirror| mirror.wants(fastrand::u64(..))).collect();
    if wanted.is_empty() {
        return body;
    }
    let length = body.size_hint();
    let mut copies = Vec::new();
    for mirror in wanted {
        let copy = match &body {
            RequestBody::Client(..) => {
                let (sender, parts) = mpsc::channel(MOST_FRAMES_BEHIND);
                copies.push(sender);
                RequestBody::Copied(Copied { parts, length })
            }
            _ => RequestBody::Empty,
        };
        send((client, permit), mesh, mirror, parts, copy);
    }
    match body {
        RequestBody::Client(body, received) if !copies.is_empty() => {
            RequestBody::Original(Box::new(Original { body, received, copies }))
        }
        other => other,
    }
}

fn send(
    (client, permit): (&Rc<Client>, &Permit),
    mesh: &Mesh,
    mirror: &Mirror,
    parts: &Parts,
    body: RequestBody,
) {
    let aim = match aim(mesh, &mirror.backend) {
        Ok(aim) => aim,
        Err(error) => {
            tracing::debug!(service = %mirror.backend, %error, "mirror failed");
            return;
        }
    };
    let service = Arc::clone(aim.service);
    let cluster = client.worker.upstream.cluster(mesh, client, aim);
    let (client, permit) = (Rc::clone(client), permit.clone());
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.version_mut() = parts.version;
    *request.headers_mut() = parts.headers.clone();
    // It was made for the original's endpoint, which may speak another version.
    let version = match parts.version {
        http::Version::HTTP_2 => Version::Http2,
        _ => Version::Http1,
    };
    // Ends with the answer, which the endpoint's timeouts and its connection bound.
    tokio::task::spawn_local(async move {
        let attempts = Attempts {
            client: &client,
            permit: &permit,
            cluster,
            wish: Wish::default(),
            service: Some(&service),
            version,
            upgrade: false,
            limits: Limits::default(),
        };
        match attempts.once(request).await {
            Ok(response) => discard(response.into_body()).await,
            Err(error) => tracing::debug!(service = %service.key, %error, "mirror failed"),
        }
    });
}

async fn discard(mut body: crate::request::Body) {
    while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
}

impl Original {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.received.note(&polled);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.tell(|| Part::Data(data.clone()));
                }
                if self.body.is_end_stream() {
                    self.tell(|| Part::End);
                }
            }
            Poll::Ready(None) => self.tell(|| Part::End),
            Poll::Ready(Some(Err(_))) => self.copies.clear(),
            Poll::Pending => {}
        }
        polled.map_err(Into::into)
    }

    /// Copies that are too far behind get nothing more.
    fn tell(&mut self, part: impl Fn() -> Part) {
        self.copies.retain(|copy| copy.try_send(part()).is_ok());
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Copied {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.parts.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Part::Data(data))) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Poll::Ready(Some(Part::End)) => Poll::Ready(None),
            Poll::Ready(None) => Poll::Ready(Some(Err(CutShort.into()))),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.length
    }
}
