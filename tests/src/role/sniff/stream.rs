//! One direction of a TCP connection, put together again and read as TLS records.
//! A new SYN on the same four-tuple starts over but forgets no verdict.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Seen;
use crate::role::http::PLAIN_MARK;

/// A TCP segment as it was on the wire.
pub(super) struct Segment<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    sequence: u32,
    syn: bool,
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads an Ethernet frame; anything but TCP over IP is nothing.
    pub(super) fn parse(frame: &'a [u8]) -> Option<Self> {
        let packet = frame.get(14..)?;
        let (from, to, tcp) = match (frame[12], frame[13]) {
            (0x08, 0x00) => {
                let header = usize::from(packet.first()? & 0x0f) * 4;
                let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
                if *packet.get(9)? != 6 {
                    return None;
                }
                let from = Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?);
                let to = Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?);
                // A length of 0 means a super-packet above 64 KiB.
                let end = if total == 0 { packet.len() } else { total.min(packet.len()) };
                (IpAddr::from(from), IpAddr::from(to), packet.get(header..end)?)
            }
            (0x86, 0xdd) => {
                if *packet.get(6)? != 6 {
                    return None;
                }
                let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
                let from = Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?);
                let to = Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?);
                let end = if length == 0 { packet.len() } else { (40 + length).min(packet.len()) };
                (IpAddr::from(from), IpAddr::from(to), packet.get(40..end)?)
            }
            _ => return None,
        };
        let port = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
        let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
        let payload = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
        let syn = tcp.get(13)? & 0x02 != 0;
        let (from, to) = (SocketAddr::new(from, port(0)?), SocketAddr::new(to, port(2)?));
        Some(Self { from, to, sequence, syn, payload })
    }
}

/// Bytes ahead of a missing packet that are kept before it counts as missed.
const PATIENCE: usize = 4 << 20;

/// What is known about one direction.
#[derive(Default)]
pub(super) struct Direction {
    next: Option<u32>,
    waiting: BTreeMap<u32, Vec<u8>>,
    waiting_bytes: usize,
    records: Records,
    packets: u64,
    unseen_start: bool,
    hole: bool,
    mark: bool,
}

impl Direction {
    pub(super) fn add(&mut self, segment: &Segment<'_>) {
        if segment.syn {
            let first = segment.sequence.wrapping_add(1);
            if self.next != Some(first) {
                self.hole |= !self.waiting.is_empty();
                self.waiting.clear();
                self.waiting_bytes = 0;
                self.records.start_over();
                self.next = Some(first);
            }
            return;
        }
        // A keep-alive probe repeats one old byte; the handling of old bytes covers it.
        if segment.payload.is_empty() {
            return;
        }
        self.packets += 1;
        self.mark |= contains_mark(segment.payload);
        let Some(next) = self.next else {
            self.unseen_start = true;
            return;
        };
        self.take(next, segment.sequence, segment.payload);
    }

    fn take(&mut self, next: u32, sequence: u32, payload: &[u8]) {
        let ahead = sequence.wrapping_sub(next);
        if ahead == 0 || ahead >= 1 << 31 {
            let old = if ahead == 0 { 0 } else { next.wrapping_sub(sequence) as usize };
            self.advance(payload.get(old..).unwrap_or_default());
            self.drain();
        } else if self.waiting_bytes < PATIENCE {
            self.waiting_bytes += payload.len();
            self.waiting.insert(sequence, payload.to_vec());
        } else {
            self.hole = true;
        }
    }

    fn advance(&mut self, bytes: &[u8]) {
        self.records.read(bytes);
        self.next = self.next.map(|next| next.wrapping_add(bytes.len() as u32));
    }

    fn drain(&mut self) {
        while let Some(next) = self.next {
            let ready = self.waiting.keys().copied().find(|start| {
                let ahead = start.wrapping_sub(next);
                ahead == 0 || ahead >= 1 << 31
            });
            let Some(start) = ready else { return };
            let bytes = self.waiting.remove(&start).unwrap_or_default();
            self.waiting_bytes -= bytes.len();
            let old = next.wrapping_sub(start) as usize;
            self.advance(bytes.get(old..).unwrap_or_default());
        }
    }

    pub(super) fn seen(self, from: SocketAddr, to: SocketAddr) -> Seen {
        Seen {
            from,
            to,
            packets: self.packets,
            bytes: self.records.read,
            from_start: !self.unseen_start,
            hole: self.hole || !self.waiting.is_empty(),
            plain_at: self.records.plain_at,
            mark: self.mark,
        }
    }
}

fn contains_mark(payload: &[u8]) -> bool {
    let mark = PLAIN_MARK.as_bytes();
    payload.windows(mark.len()).any(|window| window == mark)
}

/// Reads a byte stream as TLS records: type 20 to 23, version 3.x, at most 2^14 + 256 bytes.
#[derive(Default)]
struct Records {
    header: Vec<u8>,
    left: usize,
    read: u64,
    plain_at: Option<u64>,
}

impl Records {
    fn start_over(&mut self) {
        self.header.clear();
        self.left = 0;
    }

    fn read(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.plain_at.is_some() {
                self.read += bytes.len() as u64;
                return;
            }
            if self.left > 0 {
                let step = self.left.min(bytes.len());
                self.left -= step;
                self.read += step as u64;
                bytes = &bytes[step..];
                continue;
            }
            self.header.push(*first);
            self.read += 1;
            bytes = rest;
            self.judge();
        }
    }

    fn judge(&mut self) {
        // RFC 8446 §5.1: ContentType, ProtocolVersion legacy_record_version, uint16 length.
        let good = match self.header[..] {
            [kind] => (20..=23).contains(&kind),
            [_, major] => major == 3,
            [_, _, minor] => minor <= 3,
            [_, _, _, _] => true,
            [_, _, _, high, low] => {
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.header.clear();
                (1..=(1 << 14) + 256).contains(&self.left)
            }
            _ => false,
        };
        if !good {
            self.plain_at = Some(self.read - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Records;

    fn read(pieces: &[&[u8]]) -> Option<u64> {
        let mut records = Records::default();
        for piece in pieces {
            records.read(piece);
        }
        records.plain_at
    }

    #[test]
    fn records_split_anywhere_are_records() {
        let stream = [&[22, 3, 1, 0, 2, 9, 9, 23, 3, 3, 0, 1, 7][..]].concat();
        for split in 0..stream.len() {
            assert_eq!(read(&[&stream[..split], &stream[split..]]), None, "split at {split}");
        }
    }

    #[test]
    fn plain_text_is_found_at_its_first_byte() {
        assert_eq!(read(&[b"GET / HTTP/1.1"]), Some(0));
        assert_eq!(read(&[&[22, 3, 1, 0, 1, 9], b"GET /"]), Some(6));
    }

    #[test]
    fn an_oversized_record_is_no_record() {
        assert_eq!(read(&[&[23, 3, 3, 0xff, 0xff, 0]]), Some(4));
    }
}
