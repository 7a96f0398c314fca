//! Bodies: of requests on their way to an endpoint, and of responses on their way to a client.
//!
//! Invariants: an end that was cut short is an error, never an end.
//! Not here: what is kept of a body so that it can be sent again (`replay`).

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::request::mirror::{Copied, Original};
use crate::request::replay::Replay;
use crate::upstream::Lease;

/// Any reason why a body ends early.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request towards an endpoint.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// The client's, and what was read of it.
    Client(Incoming, Rc<Received>),
    /// The client's, of which others get a copy.
    Original(Box<Original>),
    /// A copy.
    Copied(Copied),
    /// One of those, which can be sent again.
    Replay(Replay<Self>),
}

impl RequestBody {
    /// The client's body.
    pub(crate) fn of(body: Incoming, received: Rc<Received>) -> Self {
        match http_body::Body::is_end_stream(&body) {
            true => Self::Empty,
            false => Self::Client(body, received),
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Client(body, received) => {
                let polled = Pin::new(body).poll_frame(cx);
                received.note(&polled);
                polled.map_err(Into::into)
            }
            Self::Original(body) => body.poll_frame(cx),
            Self::Copied(body) => body.poll_frame(cx),
            Self::Replay(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body, _) => body.is_end_stream(),
            Self::Original(body) => body.is_end_stream(),
            Self::Copied(_) => false,
            Self::Replay(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body, _) => body.size_hint(),
            Self::Original(body) => body.size_hint(),
            Self::Copied(body) => body.size_hint(),
            Self::Replay(body) => body.size_hint(),
        }
    }
}

/// What was read of a client's body.
#[derive(Debug, Default)]
pub(crate) struct Received {
    bytes: Cell<u64>,
    broken: RefCell<Option<Broken>>,
}

/// How a client's body ended before its end.
#[derive(Debug, Clone)]
pub(crate) enum Broken {
    /// It breaks the rules of its framing.
    Malformed(Box<str>),
    /// The client reset it, or left.
    Gone,
}

impl Received {
    /// How much was read.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Why it cannot be read to its end.
    pub(super) fn broken(&self) -> Option<Broken> {
        self.broken.borrow().clone()
    }

    pub(super) fn note(&self, polled: &Poll<Option<Result<Frame<Bytes>, hyper::Error>>>) {
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let read = frame.data_ref().map_or(0, Bytes::len);
                self.bytes.set(self.bytes.get() + read as u64);
            }
            Poll::Ready(Some(Err(error))) => {
                self.broken.replace(Some(Broken::of(error)));
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
    }
}

impl Broken {
    fn of(error: &hyper::Error) -> Self {
        let text = || Self::Malformed(shared::chain::Chain(error).to_string().into());
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            // hyper tells what is wrong with a body by these kinds, and what is wrong with a
            // connection by others.
            match error.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(
                    io::ErrorKind::InvalidInput
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::UnexpectedEof,
                ) => return text(),
                _ => source = error.source(),
            }
        }
        Self::Gone
    }
}

/// The body of a response towards the client.
#[derive(Debug)]
pub(crate) enum Body {
    /// Our own words.
    Text(Option<Bytes>),
    /// The endpoint's.
    Upstream(Box<Upstream>),
}

/// The body of an endpoint's response.
pub(crate) struct Upstream {
    pub(crate) body: Incoming,
    /// The connection, until the body has been read.
    pub(crate) lease: Option<Lease>,
    /// When the request must be over.
    pub(crate) deadline: Option<Pin<Box<Sleep>>>,
    /// Work of the endpoint, until the body has been read.
    pub(crate) work: Option<crate::cluster::Work>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("body", &self.body).finish_non_exhaustive()
    }
}

/// `timeouts.request` passed while the response was on its way.
#[derive(Debug, thiserror::Error)]
#[error("response did not end within timeouts.request")]
pub(crate) struct DeadlinePassed;

impl Body {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self::Text(None)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Upstream(upstream) => upstream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Upstream(upstream) => upstream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Upstream(upstream) => upstream.body.size_hint(),
        }
    }
}

impl Upstream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => self.finish(),
            Poll::Ready(Some(Ok(_))) if http_body::Body::is_end_stream(&self.body) => self.finish(),
            Poll::Ready(Some(_)) => {}
            Poll::Pending => {
                if let Some(deadline) = &mut self.deadline
                    && deadline.as_mut().poll(cx).is_ready()
                {
                    return Poll::Ready(Some(Err(DeadlinePassed.into())));
                }
            }
        }
        polled.map_err(Into::into)
    }

    fn finish(&mut self) {
        self.work = None;
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }
}
