//! The state that the handles and the driver of one connection share.
//!
//! Who waits for what, and who wakes them:
//! - receiving: a stream's reader, woken by data, end, reset;
//! - the stream's own window: its writer, woken by that stream's WINDOW_UPDATE;
//! - the connection's window: `for_window`, woken together when it opens;
//! - room in the output: `for_output`, woken after each full flush, those that sent nothing since
//!   the last flush first. So a bulk stream cannot starve the others.

use std::cell::{RefCell, RefMut};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::time::Instant;

use super::engine::{Capacity, ConnectionError, Engine, Event, NumberHasher, Reason, StreamId};
use super::error::{Error, StreamError};
use super::output;
use super::{BadRequest, Request, Response};

/// Shared by all handles of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    state: RefCell<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) engine: Engine,
    slots: HashMap<StreamId, Slot, BuildHasherDefault<NumberHasher>>,
    for_window: VecDeque<StreamId>,
    for_output: Queue,
    /// Requests nobody has accepted yet (server side).
    pub(super) incoming: VecDeque<(StreamId, Result<Request, BadRequest>)>,
    /// Clones of the client handle; a client connection without any closes when it is idle.
    pub(super) handles: usize,
    driver: Option<Waker>,
    /// Counts turns of the driver.
    turn: u64,
    /// Why the connection is over, once it is.
    ended: Option<Error>,
}

/// Streams waiting for room in the output.
#[derive(Debug, Default)]
struct Queue {
    hungry: VecDeque<StreamId>,
    served: VecDeque<StreamId>,
    /// Counts full flushes.
    round: u64,
    /// More than one stream waited at the last flush.
    contended: bool,
}

/// What a handle to a stream finds here.
#[derive(Debug, Default)]
struct Slot {
    received: VecDeque<Bytes>,
    response: Option<Box<Response>>,
    /// The peer's direction is closed; a reset after that takes nothing from what was received.
    ended: bool,
    /// The stream is gone, and this is why.
    reset: Option<Reason>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// The driver's turn in which the oldest unread payload came.
    waits_since: u64,
    /// The round of the last send, and how much was sent in it.
    round: u64,
    sent_bytes: usize,
}

/// Payloads up to this size are copied together behind unread ones: a slice, however short,
/// keeps the whole buffer it was read into alive.
const MERGE_BYTES: usize = 4 << 10;
/// When several streams wait, none puts more than this into the output per round.
const QUANTUM_BYTES: usize = 64 << 10;

/// Entries for which a list keeps room.
const FEW: usize = 8;

impl Connection {
    pub(super) fn new(engine: Engine) -> Rc<Self> {
        let state = State {
            engine,
            slots: HashMap::default(),
            for_window: VecDeque::new(),
            for_output: Queue::default(),
            incoming: VecDeque::new(),
            handles: 0,
            driver: None,
            turn: 0,
            ended: None,
        };
        Rc::new(Self { state: RefCell::new(state) })
    }

    /// Held only within one call, never across a wait or a wake that could run a task.
    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }
}

impl State {
    pub(super) fn register_driver(&mut self, cx: &Context<'_>) {
        register(&mut self.driver, cx);
    }

    pub(super) fn wake_driver(&self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    pub(super) fn ended(&self) -> Option<&Error> {
        self.ended.as_ref()
    }

    /// The connection is over: everybody learns why.
    pub(super) fn end(&mut self, error: Error) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(error);
        self.incoming.clear();
        for slot in self.slots.values_mut() {
            slot.wake();
        }
    }

    /// A new turn of the driver: readers that could have read have done so.
    pub(super) fn begin_turn(&mut self) {
        self.turn += 1;
    }

    /// Gives back the room that a burst needed in lists that are empty now.
    pub(super) fn shrink(&mut self) {
        self.engine.shrink();
        if self.incoming.is_empty() {
            self.incoming.shrink_to(FEW);
        }
        self.slots.shrink_to(2 * self.slots.len());
    }

    /// Feeds the engine and passes on what it makes of it.
    pub(super) fn receive(&mut self, bytes: Bytes, now: Instant) -> Result<(), ConnectionError> {
        let result = self.engine.receive(bytes, now);
        while let Some(event) = self.engine.poll_event() {
            self.dispatch(event);
        }
        result
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Request { stream, request, end } => {
                self.slots.insert(stream, Slot { ended: end, ..Slot::default() });
                self.incoming.push_back((stream, request));
            }
            Event::Response { stream, response, end } => {
                if let Some(slot) = self.slots.get_mut(&stream) {
                    slot.response = Some(Box::new(response));
                    slot.ended = end;
                    wake(&mut slot.reader);
                }
            }
            Event::Data { stream, payload } => match self.slots.get_mut(&stream) {
                Some(slot) => slot.receive(payload, self.turn),
                None => self.engine.consume(stream, payload.len()),
            },
            Event::End { stream } => {
                if let Some(slot) = self.slots.get_mut(&stream) {
                    slot.ended = true;
                    slot.wake();
                }
            }
            Event::Reset { stream, reason } => {
                if let Some(slot) = self.slots.get_mut(&stream) {
                    slot.reset = Some(reason);
                    slot.wake();
                }
            }
            Event::Window { stream } => {
                if let Some(slot) = self.slots.get_mut(&stream) {
                    wake(&mut slot.writer);
                }
            }
            Event::ConnectionWindow => {
                for stream in std::mem::take(&mut self.for_window) {
                    self.wake_writer(stream);
                }
            }
            Event::GoAway { reason } => {
                tracing::debug!(%reason, "peer is going away");
            }
        }
    }

    /// The output was written to the end: whoever waited for room may go on.
    pub(super) fn flushed(&mut self) {
        let queue = &mut self.for_output;
        queue.round += 1;
        let (hungry, served) =
            (std::mem::take(&mut queue.hungry), std::mem::take(&mut queue.served));
        queue.contended = hungry.len() + served.len() > 1;
        for stream in hungry.into_iter().chain(served) {
            self.wake_writer(stream);
        }
    }

    fn wake_writer(&mut self, stream: StreamId) {
        if let Some(slot) = self.slots.get_mut(&stream) {
            wake(&mut slot.writer);
        }
    }

    /// Opens a stream and makes room for its handle.
    pub(super) fn open(&mut self, request: &Request) -> Result<StreamId, Error> {
        use super::engine::OpenError;
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let stream = self.engine.open(request).map_err(|error| match error {
            OpenError::AtLimit => Error::AtLimit,
            OpenError::GoingAway => Error::GoingAway,
        })?;
        self.slots.insert(stream, Slot::default());
        self.wake_driver();
        Ok(stream)
    }

    pub(super) fn poll_response(
        &mut self,
        stream: StreamId,
        cx: &Context<'_>,
    ) -> Poll<Result<Response, Error>> {
        let Some(slot) = self.slots.get_mut(&stream) else {
            return Poll::Ready(Err(Error::Closed));
        };
        if let Some(response) = slot.response.take() {
            return Poll::Ready(Ok(*response));
        }
        if let Some(reason) = slot.reset {
            return Poll::Ready(Err(Error::Reset(reason)));
        }
        if let Some(error) = &self.ended {
            return Poll::Ready(Err(error.clone()));
        }
        register(&mut slot.reader, cx);
        Poll::Pending
    }

    pub(super) fn poll_recv(
        &mut self,
        stream: StreamId,
        cx: &Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let Some(slot) = self.slots.get_mut(&stream) else { return Poll::Ready(Ok(None)) };
        if let Some(payload) = slot.received.pop_front() {
            return Poll::Ready(Ok(Some(payload)));
        }
        if slot.ended {
            return Poll::Ready(Ok(None));
        }
        match slot.reset {
            Some(Reason::STREAM_CLOSED) => return Poll::Ready(Err(StreamError::BrokenPipe)),
            // Also CANCEL and NO_ERROR, which Istio ztunnel takes for an end: the one comes from an
            // application that was reset, the other from older Envoys for whatever they reset.
            Some(reason) => return Poll::Ready(Err(StreamError::Reset(reason))),
            None => {}
        }
        if let Some(error) = &self.ended {
            return Poll::Ready(Err(StreamError::Connection(error.clone())));
        }
        register(&mut slot.reader, cx);
        Poll::Pending
    }

    /// Puts back what a reader did not take.
    pub(super) fn unread(&mut self, stream: StreamId, rest: Bytes) {
        if let Some(slot) = self.slots.get_mut(&stream) {
            slot.received.push_front(rest);
        }
    }

    pub(super) fn consumed(&mut self, stream: StreamId, bytes: usize) {
        let before = self.engine.output().len();
        self.engine.consume(stream, bytes);
        if self.engine.output().len() != before {
            self.wake_driver();
        }
    }

    pub(super) fn poll_send(
        &mut self,
        stream: StreamId,
        cx: &Context<'_>,
        payload: &[u8],
    ) -> Poll<Result<usize, StreamError>> {
        if let Some(error) = &self.ended {
            return Poll::Ready(Err(StreamError::Connection(error.clone())));
        }
        let Some(slot) = self.slots.get_mut(&stream) else {
            return Poll::Ready(Err(StreamError::BrokenPipe));
        };
        let queue = &mut self.for_output;
        if slot.round != queue.round {
            (slot.round, slot.sent_bytes) = (queue.round, 0);
        }
        let had_its_share = queue.contended && slot.sent_bytes >= QUANTUM_BYTES;
        match self.engine.capacity(stream) {
            Capacity::Ready(_) if !had_its_share => {
                let share =
                    if queue.contended { QUANTUM_BYTES - slot.sent_bytes } else { usize::MAX };
                let count = payload.len().min(share);
                output::lend(self.engine.output(), count);
                let count = self.engine.send_data(stream, &payload[..count]);
                slot.sent_bytes += count;
                self.wake_driver();
                return Poll::Ready(Ok(count));
            }
            Capacity::Closed => return Poll::Ready(Err(slot.send_error())),
            Capacity::StreamWindow => {}
            Capacity::ConnectionWindow => self.for_window.push_back(stream),
            Capacity::Output | Capacity::Ready(_) if slot.sent_bytes == 0 => {
                queue.hungry.push_back(stream);
            }
            Capacity::Output | Capacity::Ready(_) => queue.served.push_back(stream),
        }
        register(&mut slot.writer, cx);
        Poll::Pending
    }

    pub(super) fn send_end(&mut self, stream: StreamId) {
        self.engine.send_end(stream);
        self.wake_driver();
    }

    pub(super) fn reset(&mut self, stream: StreamId, reason: Reason) {
        self.engine.reset(stream, reason);
        if let Some(slot) = self.slots.get_mut(&stream) {
            slot.reset.get_or_insert(reason);
        }
        self.wake_driver();
    }

    /// The handle is gone: whatever is unread is given back, whatever is open is cancelled.
    pub(super) fn release(&mut self, stream: StreamId, reason: Reason) {
        let Some(slot) = self.slots.remove(&stream) else { return };
        let unread: usize = slot.received.iter().map(Bytes::len).sum();
        self.engine.reset(stream, reason);
        self.engine.consume(stream, unread);
        self.wake_driver();
    }

    /// Whether the stream is closed in both directions or lost.
    pub(super) fn is_gone(&self, stream: StreamId) -> bool {
        let reset = |slot: &Slot| slot.reset.is_some();
        self.ended.is_some() || self.slots.get(&stream).is_none_or(reset)
    }

    /// Registers `cx` to be woken when something happens to the stream.
    pub(super) fn watch(&mut self, stream: StreamId, cx: &Context<'_>) {
        if let Some(slot) = self.slots.get_mut(&stream) {
            register(&mut slot.reader, cx);
        }
    }
}

impl Slot {
    fn receive(&mut self, payload: Bytes, turn: u64) {
        wake(&mut self.reader);
        match self.received.back_mut() {
            Some(last) if payload.len() + last.len() <= MERGE_BYTES => {
                *last = [&last[..], &payload[..]].concat().into();
            }
            // Whoever left the older payload for a whole turn will leave this one, too.
            Some(_) if payload.len() <= MERGE_BYTES || self.waits_since != turn => {
                self.received.push_back(Bytes::copy_from_slice(&payload));
            }
            Some(_) => self.received.push_back(payload),
            None => {
                self.waits_since = turn;
                self.received.push_back(payload);
            }
        }
    }

    fn send_error(&self) -> StreamError {
        match self.reset {
            Some(Reason::NO_ERROR | Reason::CANCEL | Reason::STREAM_CLOSED) | None => {
                StreamError::BrokenPipe
            }
            Some(reason) => StreamError::Reset(reason),
        }
    }

    fn wake(&mut self) {
        wake(&mut self.reader);
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
