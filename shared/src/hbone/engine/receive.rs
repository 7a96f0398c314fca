//! What each frame of the peer means.

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::frame::{Header, Reason, StreamId, flag, kind};
use super::head::{Asked, Head};
use super::input::Item;
use super::streams::{Half, Millis};
use super::{BadRequest, ConnectionError, Engine, Event, Role, Violation, write_ping, write_reset};
use crate::hbone::hpack::ListSize;

/// A header block whose CONTINUATION frames are still coming.
#[derive(Debug)]
pub(super) struct Block {
    stream: StreamId,
    end_stream: bool,
    bytes: Vec<u8>,
    frames: u32,
}

/// A DATA frame of which more is to come.
#[derive(Debug, Clone, Copy)]
pub(super) struct DataFrame {
    stream: StreamId,
    end_stream: bool,
}

/// Frames a header block may be cut into.
const MAX_BLOCK_FRAMES: u32 = 128;

impl Engine {
    /// Takes what the transport read. Afterwards there may be events and output.
    ///
    /// # Errors
    /// The connection is over: write the output (a GOAWAY) and close.
    pub fn receive(&mut self, mut bytes: Bytes, now: Instant) -> Result<(), ConnectionError> {
        self.wire.received = Millis::between(self.wire.began, now);
        while !self.closing.has_failed() {
            let step = match self.wire.input.next(&mut bytes) {
                Ok(None) => return Ok(()),
                Ok(Some(item)) => self.on_item(item, now),
                Err(violation) => Err(violation),
            };
            if let Err(violation) = step {
                self.fail(violation);
                let Violation { reason, detail } = violation;
                return Err(ConnectionError::Violation { reason, detail });
            }
        }
        Ok(())
    }

    fn on_item(&mut self, item: Item, now: Instant) -> Result<(), Violation> {
        match item {
            Item::Frame(header, payload) => self.on_frame(header, payload, now),
            Item::Unknown(header) => {
                self.check_order(header)?;
                self.wire.flood.idle_frame(now)
            }
            Item::DataStart(header) => self.on_data(header, now),
            Item::DataPiece(payload) => {
                self.on_data_piece(payload);
                Ok(())
            }
            Item::DataPadding(bytes) => {
                let stream = self.wire.data.map_or(StreamId::CONNECTION, |data| data.stream);
                self.consume(stream, bytes as usize);
                Ok(())
            }
            Item::DataEnd => {
                if let Some(data) = self.wire.data.take()
                    && data.end_stream
                {
                    self.on_end(data.stream);
                }
                Ok(())
            }
        }
    }

    /// RFC 9113 §3.4: SETTINGS come first. §6.10: nothing between HEADERS and CONTINUATION.
    fn check_order(&self, header: Header) -> Result<(), Violation> {
        if self.wire.preface_deadline.is_some()
            && (header.kind != kind::SETTINGS || header.has(flag::ACK))
        {
            return Err(Violation::new(Reason::PROTOCOL_ERROR, "first frame is not settings"));
        }
        let expected = self.wire.block.as_ref().map(|block| block.stream);
        let continued = (header.kind == kind::CONTINUATION).then_some(header.stream);
        if expected != continued {
            return Err(Violation::new(Reason::PROTOCOL_ERROR, "continuation out of place"));
        }
        Ok(())
    }

    fn on_frame(&mut self, header: Header, payload: Bytes, now: Instant) -> Result<(), Violation> {
        self.check_order(header)?;
        match header.kind {
            kind::HEADERS => self.on_headers(header, payload, now),
            kind::CONTINUATION => self.on_continuation(header, &payload, now),
            kind::PRIORITY => {
                self.of_stream(header)?;
                exactly(header, 5)?;
                self.wire.flood.idle_frame(now)
            }
            kind::RST_STREAM => self.on_reset(header, payload, now),
            kind::SETTINGS => self.on_settings(header, &payload, now),
            kind::PING => {
                of_connection(header)?;
                exactly(header, 8)?;
                if header.has(flag::ACK) {
                    self.on_ping_ack(&payload, now);
                } else {
                    write_ping(&mut self.output, flag::ACK, &payload);
                }
                self.wire.flood.idle_frame(now)
            }
            kind::GOAWAY => self.on_go_away(header, payload),
            kind::WINDOW_UPDATE => self.on_window_update(header, payload, now),
            kind::PUSH_PROMISE => Err(Violation::new(Reason::PROTOCOL_ERROR, "push promise")),
            _ => Ok(()),
        }
    }

    fn on_headers(
        &mut self,
        header: Header,
        mut payload: Bytes,
        now: Instant,
    ) -> Result<(), Violation> {
        self.of_stream(header)?;
        let short = || Violation::new(Reason::FRAME_SIZE_ERROR, "headers frame too short");
        let mut padding = 0;
        if header.has(flag::PADDED) {
            padding = usize::from(payload.try_get_u8().map_err(|_| short())?);
        }
        if header.has(flag::PRIORITY) {
            payload.try_get_u32().map_err(|_| short())?;
            payload.try_get_u8().map_err(|_| short())?;
        }
        let Some(length) = payload.len().checked_sub(padding) else {
            return Err(Violation::new(Reason::PROTOCOL_ERROR, "padding too long"));
        };
        payload.truncate(length);
        let end_stream = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            return self.on_block(header.stream, end_stream, &payload, now);
        }
        let bytes = payload.to_vec();
        self.wire.block = Some(Block { stream: header.stream, end_stream, bytes, frames: 1 });
        Ok(())
    }

    fn on_continuation(
        &mut self,
        header: Header,
        payload: &Bytes,
        now: Instant,
    ) -> Result<(), Violation> {
        let Some(mut block) = self.wire.block.take() else {
            return Err(Violation::new(Reason::PROTOCOL_ERROR, "continuation out of place"));
        };
        block.frames += 1;
        block.bytes.extend_from_slice(payload);
        let limit = self.config.max_header_list_bytes.saturating_mul(2) as usize;
        if block.frames > MAX_BLOCK_FRAMES || block.bytes.len() > limit {
            return Err(Violation::new(Reason::ENHANCE_YOUR_CALM, "endless continuation"));
        }
        if header.has(flag::END_HEADERS) {
            return self.on_block(block.stream, block.end_stream, &block.bytes, now);
        }
        self.wire.block = Some(block);
        Ok(())
    }

    fn on_block(
        &mut self,
        id: StreamId,
        end: bool,
        block: &[u8],
        now: Instant,
    ) -> Result<(), Violation> {
        let mut head = Head::default();
        let budget = self.config.max_header_list_bytes as usize;
        // RFC 9113 §4.3: every block is decoded, wanted or not, or the table is lost.
        let size = self
            .wire
            .decoder
            .decode(block, budget, &mut |name, value| head.push(name, value))
            .map_err(|_| Violation::new(Reason::COMPRESSION_ERROR, "bad header block"))?;
        match (self.role, self.streams.get(id).map(|stream| stream.remote)) {
            (Role::Server, None) if id > self.streams.last => {
                self.on_request(id, end, head, size, now)
            }
            (Role::Client, Some(Half::Head)) => self.on_response(id, end, head, size, now),
            (_, Some(Half::Open)) => self.on_trailers(id, end, &head, now),
            (_, Some(_)) => self.break_stream(id, Reason::STREAM_CLOSED, now),
            (_, None) => self.wire.flood.idle_frame(now), // for a stream that we have reset
        }
    }

    fn on_request(
        &mut self,
        id: StreamId,
        end: bool,
        head: Head,
        size: ListSize,
        now: Instant,
    ) -> Result<(), Violation> {
        if self.closing.is_final() {
            return Ok(()); // RFC 9113 §6.8: beyond the last stream we named
        }
        self.streams.last = id;
        if self.streams.len() >= self.config.max_streams as usize {
            write_reset(&mut self.output, id, Reason::REFUSED_STREAM);
            return self.wire.flood.broken_stream(now);
        }
        self.insert(id, Half::Head, if end { Half::Closed } else { Half::Open });
        let request = if size == ListSize::TooLarge {
            Err(BadRequest::TooLarge { limit_bytes: self.config.max_header_list_bytes })
        } else {
            match head.into_request() {
                Asked::Tunnel(request) => Ok(request),
                Asked::SomethingElse => Err(BadRequest::NotConnect),
                Asked::Malformed => {
                    self.reset(id, Reason::PROTOCOL_ERROR);
                    return self.wire.flood.broken_stream(now);
                }
            }
        };
        let bad = request.is_err();
        self.events.push_back(Event::Request { stream: id, request, end });
        if bad { self.wire.flood.broken_stream(now) } else { Ok(()) }
    }

    fn on_response(
        &mut self,
        id: StreamId,
        end: bool,
        head: Head,
        size: ListSize,
        now: Instant,
    ) -> Result<(), Violation> {
        if size == ListSize::TooLarge {
            return self.break_stream(id, Reason::ENHANCE_YOUR_CALM, now);
        }
        let Some(response) = head.into_response() else {
            return self.break_stream(id, Reason::PROTOCOL_ERROR, now);
        };
        if response.status.is_informational() {
            // RFC 9113 §8.1: any number of interim heads, none of which ends the stream.
            return match end {
                true => self.break_stream(id, Reason::PROTOCOL_ERROR, now),
                false => self.wire.flood.idle_frame(now),
            };
        }
        if let Some(stream) = self.streams.get_mut(id) {
            stream.remote = if end { Half::Closed } else { Half::Open };
        }
        self.events.push_back(Event::Response { stream: id, response, end });
        self.streams.settle(id);
        Ok(())
    }

    /// RFC 9113 §8.1: trailers end the stream and have no pseudo fields. §8.5 forbids them on
    /// tunnels; some peers send them all the same, and they mean no more than END_STREAM.
    fn on_trailers(
        &mut self,
        id: StreamId,
        end: bool,
        head: &Head,
        now: Instant,
    ) -> Result<(), Violation> {
        if !end || !head.is_trailers() {
            return self.break_stream(id, Reason::PROTOCOL_ERROR, now);
        }
        self.on_end(id);
        Ok(())
    }

    fn on_data(&mut self, header: Header, now: Instant) -> Result<(), Violation> {
        self.check_order(header)?;
        self.of_stream(header)?;
        let id = header.stream;
        let end_stream = header.has(flag::END_STREAM);
        self.receive.receive(header.length)?;
        self.wire.data = Some(DataFrame { stream: id, end_stream });
        if header.length == 0 && !end_stream {
            self.wire.flood.idle_frame(now)?;
        }
        let Some(stream) = self.streams.get_mut(id) else {
            // On its way when we reset the stream, or simply wrong; small frames are a flood.
            return if header.length < 1024 { self.wire.flood.idle_frame(now) } else { Ok(()) };
        };
        if stream.remote != Half::Open {
            return self.break_stream(id, Reason::STREAM_CLOSED, now);
        }
        if stream.receive.receive(header.length).is_err() {
            return self.break_stream(id, Reason::FLOW_CONTROL_ERROR, now);
        }
        Ok(())
    }

    fn on_data_piece(&mut self, payload: Bytes) {
        let Some(DataFrame { stream, .. }) = self.wire.data else { return };
        if self.streams.get(stream).is_some() {
            self.events.push_back(Event::Data { stream, payload });
        } else {
            self.consume(stream, payload.len());
        }
    }

    fn on_end(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.remote = Half::Closed;
            self.events.push_back(Event::End { stream: id });
            self.streams.settle(id);
        }
    }

    fn on_reset(
        &mut self,
        header: Header,
        mut payload: Bytes,
        now: Instant,
    ) -> Result<(), Violation> {
        self.of_stream(header)?;
        exactly(header, 4)?;
        let reason = Reason(payload.get_u32());
        let Some(stream) = self.streams.remove(header.stream) else {
            return self.wire.flood.idle_frame(now);
        };
        self.events.push_back(Event::Reset { stream: header.stream, reason });
        if self.role == Role::Server && stream.local == Half::Head {
            return self.wire.flood.broken_stream(now);
        }
        Ok(())
    }

    fn on_settings(
        &mut self,
        header: Header,
        payload: &Bytes,
        now: Instant,
    ) -> Result<(), Violation> {
        of_connection(header)?;
        self.wire.flood.idle_frame(now)?;
        if header.has(flag::ACK) {
            exactly(header, 0)?;
            let ours = self.config.first_window_bytes();
            let shift = i64::from(ours) - i64::from(self.wire.initial_receive_bytes);
            self.wire.initial_receive_bytes = ours;
            for (_, stream) in self.streams.iter_mut() {
                stream.receive.shift(shift);
            }
            return Ok(());
        }
        let before = self.peer.initial_window_bytes;
        self.peer.update(payload, self.role)?;
        self.wire.preface_deadline = None;
        let shift = i64::from(self.peer.initial_window_bytes) - i64::from(before);
        for (id, stream) in self.streams.iter_mut() {
            if stream.send.grow(shift)? {
                self.events.push_back(Event::Window { stream: id });
            }
        }
        let ack = Header { length: 0, flags: flag::ACK, ..header };
        ack.write(&mut self.output);
        Ok(())
    }

    fn on_go_away(&mut self, header: Header, mut payload: Bytes) -> Result<(), Violation> {
        of_connection(header)?;
        if payload.len() < 8 {
            return Err(Violation::new(Reason::FRAME_SIZE_ERROR, "goaway too short"));
        }
        let last = StreamId(payload.get_u32() & StreamId::LAST.0);
        let reason = Reason(payload.get_u32());
        self.closing.peer_announced();
        self.events.push_back(Event::GoAway { reason });
        if self.role == Role::Client {
            // RFC 9113 §6.8: streams above were not processed and may be tried elsewhere.
            let lost: Vec<StreamId> = self.streams.ids().filter(|id| *id > last).collect();
            for id in lost {
                self.streams.remove(id);
                self.events.push_back(Event::Reset { stream: id, reason: Reason::REFUSED_STREAM });
            }
        }
        Ok(())
    }

    fn on_window_update(
        &mut self,
        header: Header,
        mut payload: Bytes,
        now: Instant,
    ) -> Result<(), Violation> {
        exactly(header, 4)?;
        self.wire.flood.update(now)?;
        let increment = payload.get_u32() & StreamId::LAST.0;
        if header.stream == StreamId::CONNECTION {
            if increment == 0 {
                return Err(Violation::new(Reason::PROTOCOL_ERROR, "window update of zero"));
            }
            if self.send.grow(i64::from(increment))? {
                self.events.push_back(Event::ConnectionWindow);
            }
            return Ok(());
        }
        self.of_stream(header)?;
        let id = header.stream;
        let Some(stream) = self.streams.get_mut(id) else { return Ok(()) };
        if increment == 0 {
            return self.break_stream(id, Reason::PROTOCOL_ERROR, now);
        }
        match stream.send.grow(i64::from(increment)) {
            Ok(true) => self.events.push_back(Event::Window { stream: id }),
            Ok(false) => {}
            Err(violation) => return self.break_stream(id, violation.reason, now),
        }
        Ok(())
    }

    /// A stream error of the peer's making: RST_STREAM, and it counts against its budget.
    fn break_stream(
        &mut self,
        id: StreamId,
        reason: Reason,
        now: Instant,
    ) -> Result<(), Violation> {
        self.reset(id, reason);
        self.events.push_back(Event::Reset { stream: id, reason });
        self.wire.flood.broken_stream(now)
    }

    /// RFC 9113 §5.1: on idle streams only HEADERS and PRIORITY may come, and the peer opens
    /// only odd ones, in order.
    fn of_stream(&self, header: Header) -> Result<(), Violation> {
        let id = header.stream;
        if id == StreamId::CONNECTION {
            return Err(Violation::new(Reason::PROTOCOL_ERROR, "stream frame on stream zero"));
        }
        if header.kind == kind::PRIORITY {
            return Ok(());
        }
        let odd = id.0 % 2 == 1;
        let idle = id > self.streams.last;
        let opens = self.role == Role::Server && header.kind == kind::HEADERS;
        // Beyond our last GOAWAY streams are ignored, so `last` stays behind.
        let ignored = self.role == Role::Server && self.closing.is_final();
        if !odd || (idle && !opens && !ignored) {
            return Err(Violation::new(Reason::PROTOCOL_ERROR, "frame on an idle stream"));
        }
        Ok(())
    }
}

fn of_connection(header: Header) -> Result<(), Violation> {
    if header.stream != StreamId::CONNECTION {
        return Err(Violation::new(Reason::PROTOCOL_ERROR, "connection frame on a stream"));
    }
    Ok(())
}

fn exactly(header: Header, length: u32) -> Result<(), Violation> {
    if header.length != length {
        return Err(Violation::new(Reason::FRAME_SIZE_ERROR, "frame of a wrong size"));
    }
    Ok(())
}
