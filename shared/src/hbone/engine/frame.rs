//! Frames of RFC 9113 §4 and §6: header layout, type and flag numbers, error codes.

use std::fmt;

use bytes::{BufMut, BytesMut};

/// Length of every frame header.
pub(super) const HEADER_BYTES: usize = 9;
/// RFC 9113 §3.4: what a client sends first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types. Unknown ones keep their number and are skipped (RFC 9113 §4.1).
pub(super) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Frame flags.
pub(super) mod flag {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// A frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: StreamId,
}

impl Header {
    pub(super) fn parse(bytes: [u8; HEADER_BYTES]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind,
            flags,
            stream: StreamId(u32::from_be_bytes([s0, s1, s2, s3]) & StreamId::LAST.0),
        }
    }

    pub(super) fn write(self, output: &mut BytesMut) {
        output.put_uint(u64::from(self.length), 3);
        output.put_u8(self.kind);
        output.put_u8(self.flags);
        output.put_u32(self.stream.0);
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Number of a stream; odd ones are opened by clients, 0 is the connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) u32);

impl StreamId {
    pub(super) const CONNECTION: Self = Self(0);
    pub(super) const LAST: Self = Self(0x7fff_ffff);
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Error code of RST_STREAM and GOAWAY (RFC 9113 §7).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(pub u32);

impl Reason {
    /// Not an error: done, or no longer interested.
    pub const NO_ERROR: Self = Self(0x0);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    /// Something failed here.
    pub const INTERNAL_ERROR: Self = Self(0x2);
    /// The peer sent more than the window allowed.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// No SETTINGS in time.
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    /// A frame for a stream that had ended.
    pub const STREAM_CLOSED: Self = Self(0x5);
    /// A frame of a wrong size.
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    /// Nothing was done for this stream: it may be tried again elsewhere.
    pub const REFUSED_STREAM: Self = Self(0x7);
    /// No longer wanted.
    pub const CANCEL: Self = Self(0x8);
    /// The header compression state is lost.
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    /// The TCP connection behind a CONNECT stream broke.
    pub const CONNECT_ERROR: Self = Self(0xa);
    /// The peer behaves like a flood.
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
}

const REASON_NAMES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match REASON_NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {:#x}", self.0),
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_header_parses_back() {
        let header = Header { length: 0x01_0203, kind: 9, flags: 0x25, stream: StreamId(77) };
        let mut output = BytesMut::new();
        header.write(&mut output);
        assert_eq!(Header::parse(output[..].try_into().unwrap()), header);
    }

    #[test]
    fn the_reserved_bit_of_the_stream_number_is_ignored() {
        let header = Header::parse([0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(header.stream, StreamId::LAST);
    }
}
