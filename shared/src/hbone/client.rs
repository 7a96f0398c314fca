//! The opening side of a connection.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::connection::Connection;
use super::driver::Driver;
use super::engine::{Engine, Role};
use super::error::Error;
use super::stream::Stream;
use super::transport::Transport;
use super::{Config, Request, Response};

/// Makes a client connection over `transport`. The second value must be polled (spawned on the
/// same worker) for anything to happen; it ends when no handle and no stream is left.
pub fn client<T: Transport + Unpin>(transport: T, config: Config) -> (Client, Driver<T>) {
    let answer_timeout = config.answer_timeout;
    let connection = Connection::new(Engine::client(config, Instant::now()));
    let driver = Driver::new(transport, Rc::clone(&connection), Role::Client);
    (Client::new(connection, answer_timeout), driver)
}

/// Opens streams. Cheap to clone; stays on its worker.
#[derive(Debug)]
pub struct Client {
    connection: Rc<Connection>,
    answer_timeout: Duration,
}

impl Client {
    fn new(connection: Rc<Connection>, answer_timeout: Duration) -> Self {
        connection.state().handles += 1;
        Self { connection, answer_timeout }
    }

    /// Asks for a tunnel and waits for the final answer. Any status comes back as `Ok`; only
    /// with 200 is the stream a tunnel.
    ///
    /// # Errors
    /// [`Error::AtLimit`] and [`Error::GoingAway`] before anything was sent: use another
    /// connection. [`Error::Reset`] with `REFUSED_STREAM`: not processed, may be tried elsewhere.
    /// [`Error::NoAnswer`] after [`Config::answer_timeout`]; the stream is reset with CANCEL.
    ///
    /// # Cancel safety
    /// Dropping the future resets the stream with CANCEL.
    pub async fn open(&self, request: &Request) -> Result<(Response, Stream), Error> {
        let id = self.connection.state().open(request)?;
        let stream = Stream::new(Rc::clone(&self.connection), id);
        let limit = self.answer_timeout;
        let response = poll_fn(|cx| self.connection.state().poll_response(id, cx));
        let response = timeout(limit, response).await.map_err(|_| Error::NoAnswer(limit))??;
        Ok((response, stream))
    }

    /// Whether a stream can be opened now.
    pub fn is_usable(&self) -> bool {
        let state = self.connection.state();
        let room = state.engine.active_streams() < state.engine.stream_limit();
        room && !self.is_going_away_in(&state)
    }

    /// Whether no stream will ever be opened on this connection again.
    pub fn is_going_away(&self) -> bool {
        self.is_going_away_in(&self.connection.state())
    }

    fn is_going_away_in(&self, state: &super::connection::State) -> bool {
        state.ended().is_some() || state.engine.is_closing()
    }

    /// Streams that are open now.
    pub fn active_streams(&self) -> usize {
        self.connection.state().engine.active_streams()
    }

    /// Why the connection ended, if it has.
    pub fn closed(&self) -> Option<Error> {
        self.connection.state().ended().cloned()
    }

    /// Begins a graceful end: open streams finish, no new ones are opened.
    pub fn drain(&self) {
        let mut state = self.connection.state();
        state.engine.go_away();
        state.wake_driver();
    }
}

impl Clone for Client {
    fn clone(&self) -> Self {
        Self::new(Rc::clone(&self.connection), self.answer_timeout)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut state = self.connection.state();
        state.handles -= 1;
        if state.handles == 0 {
            state.wake_driver();
        }
    }
}
