//! How a connection ends: GOAWAY in both directions, keepalive, violations.
//!
//! ```text
//! open ──go_away()──► announced (GOAWAY 2^31-1, PING) ──PING ack──► final (GOAWAY last) ─┐
//!   │                                                                  no streams left   ├─► finished
//!   ├──GOAWAY from peer: no new streams ─────────────────────────────────────────────────┤
//!   └──violation, abort(): GOAWAY with a code, all over ─────────────────────────────────┘
//! ```

use bytes::{BufMut, BytesMut};
use tokio::time::Instant;

use super::frame::{Header, Reason, StreamId, kind};
use super::keepalive::{DRAIN_PING, Due, KEEPALIVE_PING};
use super::{ConnectionError, Engine, Role, Violation, write_ping};

#[derive(Debug, Default)]
pub(super) struct Closing {
    ours: Announced,
    peer_announced: bool,
    /// Nothing is received or opened any more.
    failed: bool,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum Announced {
    #[default]
    No,
    Soon,
    Final,
}

impl Closing {
    pub(super) fn refuses_new(&self) -> bool {
        self.failed || self.peer_announced || self.ours != Announced::No
    }

    /// Whether streams the peer opens now are beyond the last one we named.
    pub(super) fn is_final(&self) -> bool {
        self.failed || self.ours == Announced::Final
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    pub(super) fn peer_announced(&mut self) {
        self.peer_announced = true;
    }
}

impl Engine {
    /// Whether new streams can no longer be opened or accepted for long.
    pub fn is_closing(&self) -> bool {
        self.closing.refuses_new()
    }

    /// Whether all that is left is to write the output and close the transport.
    pub fn is_finished(&self) -> bool {
        let done = self.closing.is_final()
            || self.closing.peer_announced
            || (self.closing.ours == Announced::Soon && self.role == Role::Client);
        self.closing.failed || (done && self.streams.len() == 0)
    }

    /// Begins a graceful end: open streams finish, the peer opens no more (RFC 9113 §6.8: first
    /// with the largest number, so that requests on their way are still served).
    pub fn go_away(&mut self) {
        if self.closing.ours != Announced::No || self.closing.failed {
            return;
        }
        match self.role {
            Role::Client => {
                self.closing.ours = Announced::Final;
                write_go_away(&mut self.output, StreamId::CONNECTION, Reason::NO_ERROR, "");
            }
            Role::Server => {
                self.closing.ours = Announced::Soon;
                write_go_away(&mut self.output, StreamId::LAST, Reason::NO_ERROR, "");
                write_ping(&mut self.output, 0, &DRAIN_PING);
            }
        }
    }

    /// Ends the connection now; open streams are lost.
    pub fn abort(&mut self, reason: Reason) {
        self.fail(Violation::new(reason, ""));
    }

    /// When [`Engine::on_deadline`] must be called next.
    pub fn next_deadline(&self) -> Instant {
        let keepalive = self.wire.keepalive.deadline();
        self.wire.preface_deadline.map_or(keepalive, |preface| preface.min(keepalive))
    }

    /// Does what is due: a keepalive ping, or giving up.
    pub fn on_deadline(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if self.closing.failed {
            return Ok(());
        }
        if self.wire.preface_deadline.is_some_and(|deadline| deadline <= now) {
            self.fail(Violation::new(Reason::SETTINGS_TIMEOUT, "no settings"));
            return Err(ConnectionError::PrefaceTimeout);
        }
        match self.wire.keepalive.on_deadline(now) {
            Due::Nothing => {}
            Due::Ping => write_ping(&mut self.output, 0, &KEEPALIVE_PING),
            Due::Dead => {
                self.fail(Violation::new(Reason::NO_ERROR, "keepalive timeout"));
                return Err(ConnectionError::KeepaliveTimeout);
            }
        }
        Ok(())
    }

    pub(super) fn on_ping_ack(&mut self, opaque: &[u8], now: Instant) {
        if opaque == KEEPALIVE_PING {
            self.wire.keepalive.answered(now);
        } else if opaque == DRAIN_PING && self.closing.ours == Announced::Soon {
            self.closing.ours = Announced::Final;
            let last = self.streams.last;
            write_go_away(&mut self.output, last, Reason::NO_ERROR, "");
        }
    }

    pub(super) fn fail(&mut self, violation: Violation) {
        if self.closing.failed {
            return;
        }
        self.closing.failed = true;
        let last = match self.role {
            Role::Server => self.streams.last,
            Role::Client => StreamId::CONNECTION,
        };
        write_go_away(&mut self.output, last, violation.reason, violation.detail);
    }
}

fn write_go_away(output: &mut BytesMut, last: StreamId, reason: Reason, detail: &str) {
    let length = 8 + detail.len() as u32;
    Header { length, kind: kind::GOAWAY, flags: 0, stream: StreamId::CONNECTION }.write(output);
    output.put_u32(last.0);
    output.put_u32(reason.0);
    output.put_slice(detail.as_bytes());
}
