//! Requests that can be made again: what was read of a body is kept, within a bound.
//!
//! Invariants: a frame goes on its way at once, kept or not; over the bound nothing is kept and the
//! request cannot be made again; one reader at a time, so an attempt that was given up takes nothing
//! from its successor.
//! Source: design D8; spec L7 §3.6.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body::{Frame, SizeHint};

use crate::request::RequestBody;
use crate::request::body::Error;

/// Most bytes of a body that are kept. 64 KiB, as linkerd and agentgateway; more makes larger uploads
/// repeatable, and costs that much for each request under way.
const MOST_BYTES: usize = 64 << 10;
/// Frames shorter than this are copied together: a slice, however short, keeps the whole buffer that
/// it was read into.
const SHORT_BYTES: usize = 4 << 10;

/// A request, and what is needed to send it once more.
pub(super) struct Repeated {
    head: Request<()>,
    body: Source,
}

enum Source {
    Empty,
    Kept(Rc<Kept<RequestBody>>),
    /// Too large to be kept, or not to be: sent once, unless not a byte of it was.
    Once(Option<RequestBody>),
}

/// What was read of a body, and where the rest comes from.
#[derive(Debug)]
struct Kept<B> {
    length: SizeHint,
    state: RefCell<State<B>>,
}

#[derive(Debug)]
struct State<B> {
    rest: B,
    ended: bool,
    parts: VecDeque<Part>,
    /// Short frames since the last part.
    short: BytesMut,
    kept_bytes: usize,
    /// Whether the request can still be made again.
    keeping: bool,
    /// The reader that may read, and how many parts it has had.
    reader: u32,
    at: usize,
    waiting: Option<Waker>,
}

#[derive(Debug, Clone)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// A body from its beginning, for one attempt.
#[derive(Debug)]
pub(crate) struct Replay<B> {
    kept: Rc<Kept<B>>,
    number: u32,
}

/// Another attempt sends the body now.
#[derive(Debug, thiserror::Error)]
#[error("attempt was given up")]
struct GivenUp;

impl Repeated {
    /// Keeps what is read of `request`, unless its body is known to be too large or `once` is said.
    pub(super) fn new(request: Request<RequestBody>, once: bool) -> Self {
        let (parts, body) = request.into_parts();
        let length = http_body::Body::size_hint(&body);
        let body = match body {
            RequestBody::Empty if !once => Source::Empty,
            body if once || length.lower() > MOST_BYTES as u64 => Source::Once(Some(body)),
            body => Source::Kept(Rc::new(Kept::new(body, length))),
        };
        let mut head = Request::from_parts(parts, ());
        // What hyper left there is of the client's connection.
        head.extensions_mut().clear();
        Self { head, body }
    }

    /// The request from its beginning; none when that is gone.
    pub(super) fn make(&mut self) -> Option<Request<RequestBody>> {
        let body = match &mut self.body {
            Source::Empty => RequestBody::Empty,
            Source::Kept(kept) => RequestBody::Replay(Kept::replay(kept)?),
            Source::Once(body) => body.take()?,
        };
        Some(self.head.clone().map(|()| body))
    }

    /// Takes back a request of which nothing was sent.
    pub(super) fn take_back(&mut self, unsent: Request<RequestBody>) {
        if let Source::Once(body) = &mut self.body {
            *body = Some(unsent.into_body());
        }
    }

    /// Whether [`make`](Self::make) would give it.
    pub(super) fn is_whole(&self) -> bool {
        match &self.body {
            Source::Empty => true,
            Source::Kept(kept) => kept.state.borrow().keeping,
            Source::Once(body) => body.is_some(),
        }
    }

    /// Its head.
    pub(super) fn head(&self) -> &Request<()> {
        &self.head
    }

    /// Changes its headers for the next attempt.
    pub(super) fn headers_mut(&mut self) -> &mut HeaderMap {
        self.head.headers_mut()
    }
}

impl Drop for Repeated {
    /// There is an answer: what is still to be sent of the body is not kept any more.
    fn drop(&mut self) {
        if let Source::Kept(kept) = &self.body {
            kept.state.borrow_mut().stop_keeping();
        }
    }
}

impl<B> Kept<B> {
    fn new(rest: B, length: SizeHint) -> Self {
        let state = State {
            rest,
            ended: false,
            parts: VecDeque::new(),
            short: BytesMut::new(),
            kept_bytes: 0,
            keeping: true,
            reader: 0,
            at: 0,
            waiting: None,
        };
        Self { length, state: RefCell::new(state) }
    }

    fn replay(kept: &Rc<Self>) -> Option<Replay<B>> {
        let mut state = kept.state.borrow_mut();
        if !state.keeping {
            return None;
        }
        state.begin();
        Some(Replay { kept: Rc::clone(kept), number: state.reader })
    }
}

impl<B> State<B> {
    /// A new reader; the one before learns that it is none any more.
    fn begin(&mut self) {
        self.gather();
        self.reader += 1;
        self.at = 0;
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    fn gather(&mut self) {
        if !self.short.is_empty() {
            self.parts.push_back(Part::Data(self.short.split().freeze()));
            self.at += 1;
        }
    }

    fn stop_keeping(&mut self) {
        if std::mem::take(&mut self.keeping) {
            // What the reader has not had yet is still to be sent.
            self.parts.drain(..self.at.min(self.parts.len()));
            self.short = BytesMut::new();
        }
    }

    fn replayed(&mut self) -> Option<Part> {
        if !self.keeping {
            return self.parts.pop_front();
        }
        let part = self.parts.get(self.at)?.clone();
        self.at += 1;
        Some(part)
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if !self.keeping {
            return;
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.gather();
            self.parts.push_back(Part::Trailers(trailers.clone()));
            self.at += 1;
        }
        let Some(payload) = frame.data_ref() else { return };
        self.kept_bytes += payload.len();
        if self.kept_bytes > MOST_BYTES {
            return self.stop_keeping();
        }
        if self.short.len() + payload.len() > SHORT_BYTES {
            self.gather();
        }
        if payload.len() < SHORT_BYTES {
            self.short.extend_from_slice(payload);
        } else {
            self.parts.push_back(Part::Data(payload.clone()));
            self.at += 1;
        }
    }
}

impl<B> Replay<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<Error>> + Unpin,
{
    pub(super) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut state = self.kept.state.borrow_mut();
        if state.reader != self.number {
            return Poll::Ready(Some(Err(GivenUp.into())));
        }
        if let Some(part) = state.replayed() {
            return Poll::Ready(Some(Ok(match part {
                Part::Data(payload) => Frame::data(payload),
                Part::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut state.rest).poll_frame(cx);
        match &polled {
            Poll::Pending => state.waiting = Some(cx.waker().clone()),
            Poll::Ready(Some(Ok(frame))) => state.keep(frame),
            Poll::Ready(Some(Err(_))) => {}
            Poll::Ready(None) => state.ended = true,
        }
        polled.map_err(Into::into)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let state = self.kept.state.borrow();
        let replayed = if state.keeping { state.at } else { 0 } >= state.parts.len();
        replayed && (state.ended || state.rest.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.kept.length
    }
}

#[cfg(test)]
mod tests;
