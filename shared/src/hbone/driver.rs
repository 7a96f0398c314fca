//! Moves the bytes of one connection: read, dispatch, and one write per turn of the event loop.
//!
//! Streams that became ready in a turn put their bytes into the engine's output and wake the
//! driver, which the worker's first-in-first-out queue runs after them. So all of them share one
//! TLS record and one system call.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::Connection;
use super::engine::Role;
use super::error::Error;
use super::output;
use super::transport::Transport;

/// Future that runs one connection until it is over.
///
/// Resolves to `Ok` after a graceful end: all streams finished, or none were open.
pub struct Driver<T> {
    transport: T,
    connection: Rc<Connection>,
    role: Role,
    timer: Pin<Box<Sleep>>,
    stage: Stage,
}

/// ```text
/// Running ──finished──► Closing ──GOAWAY written, write side shut──► Lingering ──EOF, 2 s──► done
/// ```
#[derive(Debug, Clone)]
enum Stage {
    Running,
    Closing(Result<(), Error>),
    Lingering(Result<(), Error>),
    Done,
}

/// How a turn's reading ended.
enum Read {
    /// There is no more, or what there is wakes us.
    All,
    /// More may be there, which is not listened to before what it would make us say.
    UntilWritten,
}

/// What one poll may read before others get their turn.
const READ_BUDGET_BYTES: usize = 256 << 10;
/// A peer that makes us write this much without reading it is not listened to any more.
const OUTPUT_LIMIT_BYTES: usize = 1 << 20;
/// How long we wait for the peer's end after ours: closing with unread bytes would make TCP
/// throw away what the peer has not read yet.
const LINGER: Duration = Duration::from_secs(2);

impl<T: Transport> Driver<T> {
    pub(super) fn new(transport: T, connection: Rc<Connection>, role: Role) -> Self {
        let deadline = connection.state().engine.next_deadline();
        let timer = Box::pin(sleep_until(deadline));
        Self { transport, connection, role, timer, stage: Stage::Running }
    }

    /// One turn. `Ready` when the connection is over.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.connection.state().register_driver(cx);
        if matches!(self.stage, Stage::Running) {
            if let Err(error) = self.run(cx) {
                self.close(Err(error));
            } else if self.has_finished() {
                self.close(Ok(()));
            }
        }
        if let Stage::Closing(result) = self.stage.clone()
            && self.write_last(cx).is_ready()
        {
            self.timer.as_mut().reset(Instant::now() + LINGER);
            self.stage = Stage::Lingering(result);
        }
        if let Stage::Lingering(result) = self.stage.clone()
            && self.linger(cx).is_ready()
        {
            self.stage = Stage::Done;
            return Poll::Ready(result);
        }
        match self.stage {
            Stage::Done => Poll::Ready(Err(Error::Closed)),
            _ => Poll::Pending,
        }
    }

    fn run(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let now = Instant::now();
        self.connection.state().begin_turn();
        let read = self.read(cx, now)?;
        self.keep_time(cx, now)?;
        let is_written = self.write(cx)?.is_ready();
        // What is left of the output registers for room, which brings us back.
        if matches!(read, Read::UntilWritten) && is_written {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Read, Error> {
        let mut budget = READ_BUDGET_BYTES;
        loop {
            if self.connection.state().engine.output().len() > OUTPUT_LIMIT_BYTES {
                return Ok(Read::UntilWritten);
            }
            let bytes = match self.transport.poll_read(cx) {
                Poll::Pending => return Ok(Read::All),
                Poll::Ready(Err(error)) => return Err(transport_error(error)),
                Poll::Ready(Ok(bytes)) => bytes,
            };
            let count = bytes.len();
            let mut state = self.connection.state();
            if count == 0 {
                let idle = state.engine.active_streams() == 0 || state.engine.is_finished();
                state.engine.go_away();
                return if idle { Ok(Read::All) } else { Err(Error::PeerClosed) };
            }
            state.receive(bytes, now)?;
            match budget.checked_sub(count) {
                Some(left) => budget = left,
                None => {
                    cx.waker().wake_by_ref();
                    return Ok(Read::All);
                }
            }
        }
    }

    fn keep_time(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Error> {
        let mut state = self.connection.state();
        while self.timer.as_mut().poll(cx).is_ready() {
            state.engine.on_deadline(now)?;
            state.shrink();
            let next = state.engine.next_deadline().max(now + Duration::from_millis(1));
            self.timer.as_mut().reset(next);
        }
        Ok(())
    }

    /// Ready when everything is written.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Error> {
        let mut state = self.connection.state();
        let is_idle = state.engine.output().is_empty();
        match self.transport.poll_write(cx, state.engine.output()) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(())) => {
                if !is_idle {
                    output::give_back(state.engine.output());
                }
                state.flushed();
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(error)) => Err(transport_error(error)),
        }
    }

    fn has_finished(&self) -> bool {
        let mut state = self.connection.state();
        let idle = state.engine.active_streams() == 0;
        if self.role == Role::Client && state.handles == 0 && idle {
            state.engine.go_away();
        }
        state.engine.is_finished()
    }

    fn close(&mut self, result: Result<(), Error>) {
        self.connection.state().end(result.clone().err().unwrap_or(Error::GoingAway));
        self.stage = Stage::Closing(result);
        self.timer.as_mut().reset(Instant::now() + LINGER);
    }

    /// GOAWAY and whatever else is queued, then the end of our direction. Bounded by `LINGER`.
    fn write_last(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut state = self.connection.state();
        match self.transport.poll_write(cx, state.engine.output()) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) => self.transport.poll_shutdown(cx).map(|_| ()),
        }
    }

    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..64 {
            match self.transport.poll_read(cx) {
                Poll::Ready(Ok(bytes)) if !bytes.is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.timer.as_mut().poll(cx),
            }
        }
        cx.waker().wake_by_ref();
        self.timer.as_mut().poll(cx)
    }
}

impl<T: Transport + Unpin> Future for Driver<T> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_turn(cx)
    }
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        self.connection.state().end(Error::Closed);
    }
}

impl<T> std::fmt::Debug for Driver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("role", &self.role).field("stage", &self.stage).finish()
    }
}

fn transport_error(error: io::Error) -> Error {
    Error::Transport(Arc::new(error))
}
