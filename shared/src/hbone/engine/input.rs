//! Cuts the byte stream into frames, however it was split on the way.
//!
//! DATA payload is passed on piece by piece as it arrives, as slices of the caller's buffer. All
//! other frames are collected whole; their size is bounded. Unknown types are skipped unread.

use bytes::{Buf, Bytes};

use super::Violation;
use super::frame::{HEADER_BYTES, Header, PREFACE, Reason, flag, kind};

/// What the stream of bytes says next.
#[derive(Debug)]
pub(super) enum Item {
    /// A whole frame other than DATA.
    Frame(Header, Bytes),
    /// A frame of unknown type begins; its payload is skipped.
    Unknown(Header),
    /// A DATA frame begins; `length` counts padding too.
    DataStart(Header),
    /// Some of the DATA frame's payload.
    DataPiece(Bytes),
    /// Bytes of the DATA frame that carry nothing: pad length and padding.
    DataPadding(u32),
    /// The DATA frame is complete.
    DataEnd,
}

#[derive(Debug)]
pub(super) struct Input {
    state: State,
    partial: Vec<u8>,
    max_frame_bytes: u32,
    max_block_bytes: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Preface { matched: usize },
    Header,
    Payload(Header),
    Skip { left: u32 },
    PadLength(Header),
    Data { left: u32, padding: u32 },
    Padding { left: u32 },
    DataEnd,
}

/// SETTINGS, PING, GOAWAY and the like: more than any sane peer puts into one.
const MAX_CONTROL_BYTES: u32 = 16 * 1024;

impl Input {
    /// `with_preface`: whether the peer is a client and must begin with the preface.
    pub(super) fn new(with_preface: bool, max_frame_bytes: u32, max_block_bytes: u32) -> Self {
        let state = if with_preface { State::Preface { matched: 0 } } else { State::Header };
        Self { state, partial: Vec::new(), max_frame_bytes, max_block_bytes }
    }

    /// The next item in `bytes`; `None` when more bytes are needed (then `bytes` is empty).
    pub(super) fn next(&mut self, bytes: &mut Bytes) -> Result<Option<Item>, Violation> {
        loop {
            match self.state {
                State::Preface { matched } => self.preface(matched, bytes)?,
                State::Header => {
                    let Some(header) = self.header(bytes)? else { return Ok(None) };
                    if let Some(item) = self.begin(header)? {
                        return Ok(Some(item));
                    }
                }
                State::Payload(header) => {
                    let Some(payload) = self.payload(header.length as usize, bytes) else {
                        return Ok(None);
                    };
                    self.state = State::Header;
                    return Ok(Some(Item::Frame(header, payload)));
                }
                State::Skip { left: 0 } => self.state = State::Header,
                State::Skip { left } => {
                    let left = left - take(bytes, left).len() as u32;
                    self.state = State::Skip { left };
                }
                State::PadLength(header) => {
                    if bytes.is_empty() {
                        return Ok(None);
                    }
                    let padding = u32::from(bytes.get_u8());
                    let Some(left) = (header.length - 1).checked_sub(padding) else {
                        return Err(Violation::new(Reason::PROTOCOL_ERROR, "padding too long"));
                    };
                    self.state = State::Data { left, padding };
                    return Ok(Some(Item::DataPadding(1)));
                }
                State::Data { left: 0, padding } => self.state = State::Padding { left: padding },
                State::Data { left, padding } => {
                    if bytes.is_empty() {
                        return Ok(None);
                    }
                    let piece = take(bytes, left);
                    self.state = State::Data { left: left - piece.len() as u32, padding };
                    return Ok(Some(Item::DataPiece(piece)));
                }
                State::Padding { left: 0 } => self.state = State::DataEnd,
                State::Padding { left } => {
                    if bytes.is_empty() {
                        return Ok(None);
                    }
                    let padding = take(bytes, left).len() as u32;
                    self.state = State::Padding { left: left - padding };
                    return Ok(Some(Item::DataPadding(padding)));
                }
                State::DataEnd => {
                    self.state = State::Header;
                    return Ok(Some(Item::DataEnd));
                }
            }
            if bytes.is_empty() && !self.has_more() {
                return Ok(None);
            }
        }
    }

    /// Whether an item can come without further bytes.
    fn has_more(&self) -> bool {
        match self.state {
            State::Payload(header) => header.length == 0,
            State::Data { left, .. } | State::Padding { left } => left == 0,
            State::DataEnd => true,
            _ => false,
        }
    }

    fn preface(&mut self, matched: usize, bytes: &mut Bytes) -> Result<(), Violation> {
        let count = bytes.len().min(PREFACE.len() - matched);
        if bytes[..count] != PREFACE[matched..matched + count] {
            return Err(Violation::new(Reason::PROTOCOL_ERROR, "not an HTTP/2 preface"));
        }
        bytes.advance(count);
        let matched = matched + count;
        let done = matched == PREFACE.len();
        self.state = if done { State::Header } else { State::Preface { matched } };
        Ok(())
    }

    fn header(&mut self, bytes: &mut Bytes) -> Result<Option<Header>, Violation> {
        let Some(header) = self.payload(HEADER_BYTES, bytes) else { return Ok(None) };
        let header: Result<[u8; HEADER_BYTES], _> = header[..].try_into();
        let header = header.map_err(|_| Violation::new(Reason::INTERNAL_ERROR, "frame header"))?;
        Ok(Some(Header::parse(header)))
    }

    fn begin(&mut self, header: Header) -> Result<Option<Item>, Violation> {
        if header.length > self.max_frame_bytes {
            return Err(Violation::new(Reason::FRAME_SIZE_ERROR, "frame above the size we allow"));
        }
        match header.kind {
            kind::DATA => {
                if header.has(flag::PADDED) && header.length == 0 {
                    return Err(Violation::new(Reason::FRAME_SIZE_ERROR, "no room for pad length"));
                }
                self.state = if header.has(flag::PADDED) {
                    State::PadLength(header)
                } else {
                    State::Data { left: header.length, padding: 0 }
                };
                Ok(Some(Item::DataStart(header)))
            }
            kind::HEADERS | kind::CONTINUATION if header.length > self.max_block_bytes => {
                Err(Violation::new(Reason::ENHANCE_YOUR_CALM, "header block too large"))
            }
            kind::PRIORITY..=kind::WINDOW_UPDATE if header.length > MAX_CONTROL_BYTES => {
                Err(Violation::new(Reason::ENHANCE_YOUR_CALM, "control frame too large"))
            }
            kind::HEADERS..=kind::CONTINUATION => {
                self.state = State::Payload(header);
                Ok(None)
            }
            _ => {
                self.state = State::Skip { left: header.length };
                Ok(Some(Item::Unknown(header)))
            }
        }
    }

    /// `length` bytes in one piece: a slice of the input when it holds them all.
    fn payload(&mut self, length: usize, bytes: &mut Bytes) -> Option<Bytes> {
        if self.partial.is_empty() && bytes.len() >= length {
            return Some(bytes.split_to(length));
        }
        let missing = length - self.partial.len();
        let piece = take(bytes, missing as u32);
        self.partial.extend_from_slice(&piece);
        (self.partial.len() == length).then(|| Bytes::from(std::mem::take(&mut self.partial)))
    }
}

fn take(bytes: &mut Bytes, at_most: u32) -> Bytes {
    bytes.split_to(bytes.len().min(at_most as usize))
}
