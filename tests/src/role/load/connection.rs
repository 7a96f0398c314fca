//! One HTTP/1.1 connection of the load generator: never waits, says how far it got.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustls::ClientConfig;

use super::answer::Answer;
use super::wire::Wire;

/// What [`Connection::advance`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More is to come; the socket will say so.
    Waiting,
    /// The answer is whole.
    Answered,
    /// The peer ended the connection after we did.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Sending { sent: usize },
    Receiving,
    Idle,
    Closing,
}

/// A connection that is kept between requests.
pub(super) struct Connection {
    wire: Wire,
    phase: Phase,
    answer: Answer,
}

impl Connection {
    /// Begins to connect; the first request follows as soon as there is a connection.
    ///
    /// # Errors
    /// The kernel refuses at once.
    pub(super) fn open(
        target: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, String> {
        let wire = Wire::open(target, tls).map_err(|error| kind("connect", &error))?;
        Ok(Self { wire, phase: Phase::Connecting, answer: Answer::default() })
    }

    /// Begins the next request on an idle connection.
    pub(super) fn begin(&mut self) {
        debug_assert!(self.phase == Phase::Idle, "one request at a time");
        self.answer.clear();
        self.phase = Phase::Sending { sent: 0 };
    }

    /// Ends our direction; the peer's end is awaited.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.phase = Phase::Closing;
        self.wire.end().map_err(|error| kind("close", &error))
    }

    /// The last answer.
    pub(super) fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Goes on as far as the socket lets it.
    ///
    /// # Errors
    /// The kind of failure, for the report; the connection is of no more use.
    pub(super) fn advance(&mut self, request: &[u8], buffer: &mut [u8]) -> Result<Step, String> {
        if self.phase == Phase::Connecting {
            if let Some(error) = self.wire.take_error() {
                return Err(kind("connect", &error));
            }
            self.phase = Phase::Sending { sent: 0 };
        }
        if let Phase::Sending { sent } = &mut self.phase {
            while *sent < request.len() {
                match self.wire.write(&request[*sent..]) {
                    Ok(written) => *sent += written,
                    Err(error) if is_early(&error) => return Ok(Step::Waiting),
                    Err(error) => return Err(kind("send", &error)),
                }
            }
            // The answer cannot be there yet.
            self.phase = Phase::Receiving;
            return Ok(Step::Waiting);
        }
        self.wire.flush().map_err(|error| kind("send", &error))?;
        self.receive(buffer)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Step, String> {
        loop {
            let read = match self.wire.read(buffer) {
                Ok(read) => read,
                Err(error) if is_early(&error) => return Ok(Step::Waiting),
                // Servers end TLS by closing the socket; the answer was whole by its length.
                Err(error)
                    if self.phase == Phase::Closing
                        && error.kind() == io::ErrorKind::UnexpectedEof =>
                {
                    return Ok(Step::Closed);
                }
                Err(error) if self.phase == Phase::Closing => return Err(kind("close", &error)),
                Err(error) => return Err(kind("read", &error)),
            };
            match (self.phase, read) {
                (Phase::Closing, 0) => return Ok(Step::Closed),
                (Phase::Receiving, 0) => return Err("closed before the answer".to_owned()),
                (_, 0) => return Err("closed between requests".to_owned()),
                (Phase::Receiving, _) => {}
                _ => return Err("bytes after the answer".to_owned()),
            }
            if self.answer.take(&buffer[..read])? {
                self.phase = Phase::Idle;
                return Ok(Step::Answered);
            }
            if self.wire.is_drained_by(read, buffer.len()) {
                return Ok(Step::Waiting);
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}

fn is_early(error: &io::Error) -> bool {
    // Writing before the connection is there fails like this too.
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn kind(what: &str, error: &io::Error) -> String {
    format!("{what}: {:?}", error.kind())
}
