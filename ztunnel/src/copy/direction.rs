//! One direction of a copy: read, pass on, end.

use std::cell::Cell;
use std::task::{Context, Poll, ready};

use crate::copy::early::Early;
use crate::copy::endpoint::{Cut, Endpoint, Received};
use crate::copy::scratch::{self, Pending};

/// One direction yields after this much, so that bulk cannot hold up its worker's other connections.
const TURN_BYTES: usize = 256 * 1024;

/// Which end of a direction failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// Reading.
    Source(Cut),
    /// Writing.
    Sink(Cut),
}

/// ```text
/// Reading ⇄ Sending(pending)
///    └─ end of stream → Ending → Done
/// ```
#[derive(Default)]
enum State {
    #[default]
    Reading,
    Sending(Pending),
    Ending,
    Done,
}

#[derive(Default)]
pub(super) struct Direction {
    state: State,
    doubts_end: bool,
}

impl Direction {
    /// One that begins with what was read before.
    pub(super) fn with(read: &[u8]) -> Self {
        let state = match read {
            [] => State::Reading,
            read => State::Sending(Pending::copied(read)),
        };
        Self { state, doubts_end: false }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// From now on an end that is read is not passed on.
    pub(super) fn doubt_end(&mut self) {
        self.doubts_end = true;
    }

    pub(super) fn poll<S: Endpoint, D: Endpoint>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        sink: &mut D,
        count: &Cell<u64>,
        early: &mut Early,
    ) -> Poll<Result<(), Fault>> {
        let mut moved_bytes = 0;
        loop {
            match &mut self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(sink.poll_end(cx)).map_err(Fault::Sink)?;
                    self.state = State::Done;
                }
                State::Sending(pending) => {
                    let Poll::Ready(sent) = pending.poll_send(cx, sink) else {
                        pending.settle();
                        return Poll::Pending;
                    };
                    let sent = sent.map_err(Fault::Sink)?;
                    count.set(count.get() + sent as u64);
                    source.consumed(sent);
                    moved_bytes += sent;
                    if pending.advance(sent) {
                        self.state = State::Reading;
                    }
                }
                State::Reading if moved_bytes >= TURN_BYTES => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                State::Reading => match ready!(read(cx, source, sink, early)) {
                    Ok(Turn::Passed(sent)) => {
                        count.set(count.get() + sent as u64);
                        source.consumed(sent);
                        moved_bytes += sent;
                    }
                    Ok(Turn::Left(sent, pending)) => {
                        count.set(count.get() + sent as u64);
                        source.consumed(sent);
                        moved_bytes += sent;
                        self.state = State::Sending(pending);
                    }
                    Ok(Turn::Ended) if self.doubts_end => return Poll::Pending,
                    Ok(Turn::Ended) => self.state = State::Ending,
                    Err(fault) => return Poll::Ready(Err(fault)),
                },
            }
        }
    }
}

enum Turn {
    /// All that was read was passed on.
    Passed(usize),
    /// This much was passed on; the rest waits.
    Left(usize, Pending),
    Ended,
}

/// Reads once and offers what came to the sink at once: in the common case nothing is left, so no
/// buffer outlives the call.
fn read<S: Endpoint, D: Endpoint>(
    cx: &mut Context<'_>,
    source: &mut S,
    sink: &mut D,
    early: &mut Early,
) -> Poll<Result<Turn, Fault>> {
    scratch::with(|scratch| {
        let received = ready!(source.poll_recv(cx, scratch)).map_err(Fault::Source)?;
        let pending = match received {
            Received::End => return Poll::Ready(Ok(Turn::Ended)),
            Received::Shared(first) => {
                // Only sockets are sent again.
                early.forget();
                let pending = Pending::shared(first, || match source.poll_recv(cx, scratch) {
                    Poll::Ready(Ok(Received::Shared(more))) => Some(more),
                    _ => None,
                });
                return Poll::Ready(Ok(Turn::Left(0, pending)));
            }
            Received::Scratch(length) => &scratch[..length],
        };
        early.add(pending);
        match sink.poll_send(cx, pending) {
            Poll::Ready(Ok(sent)) if sent == pending.len() => Poll::Ready(Ok(Turn::Passed(sent))),
            Poll::Ready(Ok(sent)) => {
                Poll::Ready(Ok(Turn::Left(sent, Pending::copied(&pending[sent..]))))
            }
            Poll::Ready(Err(cut)) => Poll::Ready(Err(Fault::Sink(cut))),
            Poll::Pending => Poll::Ready(Ok(Turn::Left(0, Pending::copied(pending)))),
        }
    })
}
