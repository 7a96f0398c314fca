//! The answering side of a connection.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::StatusCode;
use http::header::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::Connection;
use super::driver::Driver;
use super::engine::{Engine, Reason, Role, StreamId};
use super::error::Error;
use super::stream::Stream;
use super::transport::Transport;
use super::{BadRequest, Config, Request};
use crate::workers::inherit;

/// A connection on which a client opens streams.
///
/// It only moves while [`Server::accept`] is polled: call it in a loop and handle each stream in
/// a task of its own. Dropping it drops the connection.
#[derive(Debug)]
pub struct Server<T> {
    driver: Driver<T>,
    connection: Rc<Connection>,
    over: bool,
}

impl<T: Transport + Unpin> Server<T> {
    /// A server over `transport`; the client must begin within `config.preface_timeout`.
    pub fn new(transport: T, config: Config) -> Self {
        let connection = Connection::new(Engine::server(config, Instant::now()));
        let driver = Driver::new(transport, Rc::clone(&connection), Role::Server);
        Self { driver, connection, over: false }
    }

    /// The next stream; `None` when the connection ended gracefully, or after its error.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost. But nothing moves while it is not polled.
    pub async fn accept(&mut self) -> Option<Result<Incoming, Error>> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`Server::accept`].
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let turn = self.driver.poll_turn(cx);
        let next = self.connection.state().incoming.pop_front();
        if let Some((id, request)) = next {
            let connection = Rc::clone(&self.connection);
            return Poll::Ready(Some(Ok(Incoming { connection, id, request, answered: false })));
        }
        turn.map(|result| {
            self.over = true;
            result.err().map(Err)
        })
    }

    /// Hands every stream to `serve`, which becomes a task of its own, until the connection ends or,
    /// once `draining` does, its streams have. What is left then is aborted with the connection.
    ///
    /// # Errors
    /// Why the connection ended, unless gracefully.
    pub async fn serve_each<F>(
        &mut self,
        draining: impl Future<Output = ()>,
        serve: impl Fn(Incoming) -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = ()> + 'static,
    {
        let mut draining = pin!(draining);
        let mut drained = false;
        // Aborts what is left when the connection is gone.
        let mut streams = JoinSet::new();
        let ended = loop {
            tokio::select! {
                () = &mut draining, if !drained => {
                    self.drain();
                    drained = true;
                }
                Some(_) = streams.join_next(), if !streams.is_empty() => {}
                next = self.accept() => match next {
                    Some(Ok(incoming)) => {
                        streams.spawn_local(inherit(serve(incoming)));
                    }
                    Some(Err(error)) => break Err(error),
                    None => break Ok(()),
                },
            }
        };
        // The connection has ended for its streams, too.
        while streams.join_next().await.is_some() {}
        ended
    }

    /// Begins a graceful end: GOAWAY, open streams finish. Keep accepting until `None`.
    pub fn drain(&self) {
        self.drainer().drain();
    }

    /// A handle that can drain or abort from elsewhere on this worker.
    pub fn drainer(&self) -> Drainer {
        Drainer { connection: Rc::clone(&self.connection) }
    }

    /// Ends the connection at once: GOAWAY, all streams are lost.
    pub fn abort(&self) {
        self.drainer().abort();
    }

    /// Streams that are open now.
    pub fn active_streams(&self) -> usize {
        self.connection.state().engine.active_streams()
    }
}

/// Ends a [`Server`] from outside its accept loop.
#[derive(Debug, Clone)]
pub struct Drainer {
    connection: Rc<Connection>,
}

impl Drainer {
    /// See [`Server::drain`].
    pub fn drain(&self) {
        let mut state = self.connection.state();
        state.engine.go_away();
        state.wake_driver();
    }

    /// See [`Server::abort`].
    pub fn abort(&self) {
        let mut state = self.connection.state();
        state.engine.abort(Reason::NO_ERROR);
        state.wake_driver();
    }
}

/// A stream that waits for an answer. Dropped without one, it is reset with REFUSED_STREAM:
/// nothing has been done for it.
#[derive(Debug)]
pub struct Incoming {
    connection: Rc<Connection>,
    id: StreamId,
    request: Result<Request, BadRequest>,
    answered: bool,
}

impl Incoming {
    /// What the client asks for.
    ///
    /// # Errors
    /// It asks for no tunnel: refuse it with [`BadRequest::status`].
    pub fn request(&self) -> Result<&Request, BadRequest> {
        self.request.as_ref().map_err(|bad| *bad)
    }

    /// Answers 200: from now on the stream carries bytes.
    pub fn accept(mut self, headers: &HeaderMap) -> Stream {
        self.answer(StatusCode::OK, headers, false);
        Stream::new(Rc::clone(&self.connection), self.id)
    }

    /// Answers with another status and ends the stream.
    pub fn refuse(mut self, status: StatusCode, headers: &HeaderMap) {
        self.answer(status, headers, true);
        self.connection.state().release(self.id, Reason::NO_ERROR);
    }

    /// Resets the stream without an answer.
    pub fn reset(mut self, reason: Reason) {
        self.answered = true;
        self.connection.state().release(self.id, reason);
    }

    /// Resolves when the client no longer waits: it reset the stream, or the connection ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn cancelled(&self) {
        poll_fn(|cx| {
            let mut state = self.connection.state();
            if state.is_gone(self.id) {
                return Poll::Ready(());
            }
            state.watch(self.id, cx);
            Poll::Pending
        })
        .await;
    }

    fn answer(&mut self, status: StatusCode, headers: &HeaderMap, end: bool) {
        self.answered = true;
        let mut state = self.connection.state();
        state.engine.respond(self.id, status, headers, end);
        state.wake_driver();
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.state().release(self.id, Reason::REFUSED_STREAM);
        }
    }
}
