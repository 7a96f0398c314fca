//! The tunnel engine: the part of HTTP/2 (RFC 9113) that CONNECT needs, without I/O.
//!
//! Bytes in ([`Engine::receive`]) become events ([`Engine::poll_event`]); commands become bytes
//! out ([`Engine::output`]). Time enters as `now`. Nothing a peer sends can panic; every buffer
//! that a peer can fill is bounded.
//!
//! Not here: sockets, tasks, wakers (the skin beside this module); TLS (`tls::stream`).

mod closing;
mod flood;
mod frame;
mod head;
mod input;
mod keepalive;
mod receive;
mod settings;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use http::header::HeaderMap;
use tokio::time::Instant;

use self::closing::Closing;
use self::flood::Flood;
use self::frame::{HEADER_BYTES, Header, PREFACE, flag, kind};
pub use self::frame::{Reason, StreamId};
use self::input::Input;
use self::keepalive::Keepalive;
use self::receive::Block;
pub(crate) use self::streams::NumberHasher;
use self::streams::{DEFAULT_WINDOW, Half, Millis, ReceiveWindow, SendWindow, Stream, Streams};
use super::hpack;
use super::{BadRequest, Config, Request, Response};

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens streams.
    Client,
    /// Answers them.
    Server,
}

/// What the peer did.
#[derive(Debug)]
pub enum Event {
    /// A client asks for a tunnel, or for something else (server side); either needs an answer.
    /// `end`: it will send no bytes.
    Request {
        /// The new stream.
        stream: StreamId,
        /// What is asked.
        request: Result<Request, BadRequest>,
        /// Whether the peer's direction is already closed.
        end: bool,
    },
    /// The final head of the answer (client side).
    Response {
        /// The stream we opened.
        stream: StreamId,
        /// The answer.
        response: Response,
        /// Whether the peer's direction is already closed.
        end: bool,
    },
    /// Payload. Give the window back with [`Engine::consume`], even if the stream has gone.
    Data {
        /// The stream.
        stream: StreamId,
        /// Never empty; a slice of what was passed to [`Engine::receive`].
        payload: Bytes,
    },
    /// The peer's direction is closed: END_STREAM, or trailers.
    End {
        /// The stream.
        stream: StreamId,
    },
    /// The stream is gone, by RST_STREAM, by the peer's GOAWAY, or because the peer broke it.
    Reset {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: Reason,
    },
    /// The stream's own send window opened again.
    Window {
        /// The stream.
        stream: StreamId,
    },
    /// The connection's send window opened again.
    ConnectionWindow,
    /// The peer will accept no new streams.
    GoAway {
        /// Why.
        reason: Reason,
    },
}

/// Why a connection ended by fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// The peer broke the protocol or flooded us; it was told with GOAWAY.
    #[error("peer broke the tunnel protocol ({reason}): {detail}")]
    Violation {
        /// Code sent in GOAWAY.
        reason: Reason,
        /// What it did.
        detail: &'static str,
    },
    /// A keepalive ping was not answered.
    #[error("peer did not answer a keepalive ping")]
    KeepaliveTimeout,
    /// No SETTINGS came after connecting.
    #[error("peer did not begin the tunnel protocol in time")]
    PrefaceTimeout,
}

/// How much can be sent on a stream now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// That many bytes, at least one.
    Ready(usize),
    /// Wait for [`Event::Window`].
    StreamWindow,
    /// Wait for [`Event::ConnectionWindow`].
    ConnectionWindow,
    /// Wait until the output has been written.
    Output,
    /// Never again: our direction is closed or the stream is gone.
    Closed,
}

/// Why [`Engine::open`] made no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// As many streams as the peer allows are open.
    AtLimit,
    /// The connection is closing.
    GoingAway,
}

/// A breach that ends the connection.
#[derive(Debug, Clone, Copy)]
struct Violation {
    reason: Reason,
    detail: &'static str,
}

impl Violation {
    fn new(reason: Reason, detail: &'static str) -> Self {
        Self { reason, detail }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Engine {
    role: Role,
    config: Config,
    wire: Wire,
    streams: Streams,
    peer: settings::Peer,
    send: SendWindow,
    receive: ReceiveWindow,
    events: VecDeque<Event>,
    output: BytesMut,
    closing: Closing,
}

/// State of the byte streams, as opposed to that of the tunnels in them.
#[derive(Debug)]
struct Wire {
    input: Input,
    decoder: hpack::Decoder,
    encoder: hpack::Encoder,
    block: Option<Block>,
    data: Option<receive::DataFrame>,
    flood: Flood,
    keepalive: Keepalive,
    /// Until when the peer's SETTINGS must have come; `None` once they have.
    preface_deadline: Option<Instant>,
    /// The window new streams are counted from: ours, once our SETTINGS are acknowledged.
    initial_receive_bytes: u32,
    began: Instant,
    /// When something was received last.
    received: Millis,
}

impl Engine {
    /// The opening end. The preface is in the output at once.
    pub fn client(config: Config, now: Instant) -> Self {
        Self::new(Role::Client, config, now)
    }

    /// The answering end.
    pub fn server(config: Config, now: Instant) -> Self {
        Self::new(Role::Server, config, now)
    }

    fn new(role: Role, config: Config, now: Instant) -> Self {
        // A list twice as long as allowed is still read, to be answered politely.
        let max_block_bytes = config.max_header_list_bytes.saturating_mul(2);
        let wire = Wire {
            input: Input::new(role == Role::Server, config.max_frame_bytes, max_block_bytes),
            decoder: hpack::Decoder::new(),
            encoder: hpack::Encoder::default(),
            block: None,
            data: None,
            flood: Flood::new(now),
            keepalive: Keepalive::new(config.ping_interval, config.ping_timeout, now),
            preface_deadline: Some(now + config.preface_timeout),
            initial_receive_bytes: DEFAULT_WINDOW,
            began: now,
            received: Millis::default(),
        };
        let mut output = BytesMut::new();
        if role == Role::Client {
            output.extend_from_slice(PREFACE);
        }
        settings::write(&config, role, &mut output);
        let mut receive = ReceiveWindow::new(DEFAULT_WINDOW, Millis::default());
        if let Some(increment @ 1..) = config.connection_window_bytes.checked_sub(DEFAULT_WINDOW) {
            write_window_update(&mut output, StreamId::CONNECTION, increment);
            receive.shift(i64::from(increment));
        }
        Self {
            role,
            peer: settings::Peer::assumed(&config),
            wire,
            streams: Streams::new(config.budget.clone()),
            config,
            send: SendWindow::new(DEFAULT_WINDOW),
            receive,
            events: VecDeque::new(),
            output,
            closing: Closing::default(),
        }
    }

    /// The next thing that happened; ask until `None` after every [`Engine::receive`].
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Gives back the room that a burst needed in lists that are empty now.
    pub fn shrink(&mut self) {
        const FEW: usize = 8;
        if self.events.is_empty() {
            self.events.shrink_to(FEW);
        }
        self.streams.shrink();
    }

    /// Bytes to write. The caller takes from the front what it has written.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Streams that are open in at least one direction.
    pub fn active_streams(&self) -> usize {
        self.streams.len()
    }

    /// How many streams we may have open at a time.
    pub fn stream_limit(&self) -> usize {
        self.peer.max_streams.min(self.config.max_streams) as usize
    }

    /// Opens a tunnel (client side).
    pub fn open(&mut self, request: &Request) -> Result<StreamId, OpenError> {
        if self.closing.refuses_new() || self.role == Role::Server {
            return Err(OpenError::GoingAway);
        }
        if self.streams.len() >= self.stream_limit() {
            return Err(OpenError::AtLimit);
        }
        // RFC 9113 §5.1.1: numbers are never reused; a connection out of numbers is done.
        let id = match self.streams.last.0 {
            0 => StreamId(1),
            last => StreamId(last.saturating_add(2)),
        };
        if id > StreamId::LAST {
            return Err(OpenError::GoingAway);
        }
        self.streams.last = id;
        self.insert(id, Half::Open, Half::Head);
        let mut block = Vec::with_capacity(128);
        let encoder = &mut self.wire.encoder;
        encoder.begin(&mut block);
        encoder.field(&mut block, b":method", b"CONNECT");
        encoder.field(&mut block, b":authority", request.authority.as_bytes());
        self.write_head(id, block, &request.headers, false);
        Ok(id)
    }

    /// Sends the final head of an answer (server side); with `end`, nothing follows it.
    /// Ignored when the stream has gone or was answered.
    pub fn respond(&mut self, id: StreamId, status: StatusCode, headers: &HeaderMap, end: bool) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.local != Half::Head {
            return;
        }
        stream.local = if end { Half::Closed } else { Half::Open };
        let peer_still_sends = stream.remote != Half::Closed;
        let mut block = Vec::with_capacity(64);
        self.wire.encoder.begin(&mut block);
        self.wire.encoder.field(&mut block, b":status", status.as_str().as_bytes());
        self.write_head(id, block, headers, end);
        if end && peer_still_sends {
            // RFC 9113 §8.1: a complete answer before the end of the request, then NO_ERROR.
            self.reset(id, Reason::NO_ERROR);
        }
        self.streams.settle(id);
    }

    /// How much [`Engine::send_data`] would take now.
    pub fn capacity(&self, id: StreamId) -> Capacity {
        let Some(stream) = self.streams.get(id).filter(|stream| stream.local == Half::Open) else {
            return Capacity::Closed;
        };
        let room = self.config.output_limit_bytes.saturating_sub(self.output.len());
        let frame = self.peer.max_frame_bytes as usize;
        match (stream.send.available(), self.send.available()) {
            (0, _) => Capacity::StreamWindow,
            (_, 0) => Capacity::ConnectionWindow,
            _ if room == 0 => Capacity::Output,
            (of_stream, of_connection) => {
                Capacity::Ready(of_stream.min(of_connection).min(frame).min(room))
            }
        }
    }

    /// Queues one DATA frame with as much of `payload` as fits now; gives the number of bytes.
    /// Zero: see [`Engine::capacity`].
    pub fn send_data(&mut self, id: StreamId, payload: &[u8]) -> usize {
        let Capacity::Ready(room) = self.capacity(id) else { return 0 };
        let count = payload.len().min(room);
        if count == 0 {
            return 0;
        }
        let length = count as u32;
        if let Some(stream) = self.streams.get_mut(id) {
            stream.send.spend(length);
        }
        self.send.spend(length);
        self.wire.flood.sent(length);
        self.output.reserve(HEADER_BYTES + count);
        Header { length, kind: kind::DATA, flags: 0, stream: id }.write(&mut self.output);
        self.output.put_slice(&payload[..count]);
        count
    }

    /// Closes our direction. Ignored when it is closed already.
    pub fn send_end(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.local != Half::Open {
            return;
        }
        stream.local = Half::Closed;
        let header = Header { length: 0, kind: kind::DATA, flags: flag::END_STREAM, stream: id };
        header.write(&mut self.output);
        self.streams.settle(id);
    }

    /// Ends the stream in both directions. Ignored when it is gone already.
    pub fn reset(&mut self, id: StreamId, reason: Reason) {
        if self.streams.remove(id).is_some() {
            write_reset(&mut self.output, id, reason);
        }
    }

    /// Gives back window for `bytes` of delivered payload. Right for streams that have gone, too:
    /// the connection's window still holds their bytes.
    pub fn consume(&mut self, id: StreamId, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let now = self.wire.received;
        let most = self.config.stream_window_bytes;
        if let Some(more) = self.streams.consume(id, bytes, now, most) {
            write_window_update(&mut self.output, id, more);
        }
        if let Some(more) = self.receive.consume(bytes, now, |_| 0) {
            write_window_update(&mut self.output, StreamId::CONNECTION, more);
        }
    }

    fn insert(&mut self, id: StreamId, local: Half, remote: Half) {
        let stream = Stream {
            local,
            remote,
            send: SendWindow::new(self.peer.initial_window_bytes),
            receive: ReceiveWindow::new(self.wire.initial_receive_bytes, self.wire.received),
            granted: 0,
        };
        self.streams.insert(id, stream);
    }

    /// HEADERS, and CONTINUATION as far as needed (RFC 9113 §4.3: nothing in between).
    fn write_head(&mut self, id: StreamId, mut block: Vec<u8>, headers: &HeaderMap, end: bool) {
        for (name, value) in headers {
            self.wire.encoder.field(&mut block, name.as_str().as_bytes(), value.as_bytes());
        }
        let mut kind = kind::HEADERS;
        let mut flags = if end { flag::END_STREAM } else { 0 };
        let mut pieces = block.chunks(settings::DEFAULT_MAX_FRAME_BYTES as usize).peekable();
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                flags |= flag::END_HEADERS;
            }
            Header { length: piece.len() as u32, kind, flags, stream: id }.write(&mut self.output);
            self.output.put_slice(piece);
            (kind, flags) = (kind::CONTINUATION, 0);
        }
    }
}

fn write_window_update(output: &mut BytesMut, stream: StreamId, increment: u32) {
    Header { length: 4, kind: kind::WINDOW_UPDATE, flags: 0, stream }.write(output);
    output.put_u32(increment);
}

fn write_reset(output: &mut BytesMut, stream: StreamId, reason: Reason) {
    Header { length: 4, kind: kind::RST_STREAM, flags: 0, stream }.write(output);
    output.put_u32(reason.0);
}

fn write_ping(output: &mut BytesMut, flags: u8, opaque: &[u8]) {
    Header { length: 8, kind: kind::PING, flags, stream: StreamId::CONNECTION }.write(output);
    output.put_slice(opaque);
}
