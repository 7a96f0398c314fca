//! Netlink, as much as capture needs: attribute trees, requests with answers, dumps, batches.
//!
//! A message is written as a tree of attributes and read back against the same tree
//! ([`Attribute::is_in`]), so what is verified is exactly what was asked for. That is why this is
//! not one of the generated crates: they have typed readers without equality, lack the `redir`
//! expression, and bring twenty thousand lines for the forty constants used here.
//! Invariants: a socket talks to the namespace it was opened in; every request is acknowledged.

use std::io::{self, Read};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

const AF_NETLINK: i32 = 16;
const HEADER_BYTES: usize = 16;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Request flags of `linux/netlink.h`.
pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;

/// The kernel answers within its own work; only a broken one keeps us waiting.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Which part of the kernel a socket talks to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Family {
    Route = 0,
    SocketDiagnosis = 4,
    Netfilter = 12,
}

/// One attribute, with its value or its children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    kind: u16,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Bytes(Vec<u8>),
    Children(Vec<Attribute>),
}

impl Attribute {
    pub(crate) fn bytes(kind: u16, value: impl Into<Vec<u8>>) -> Self {
        Self { kind, value: Value::Bytes(value.into()) }
    }

    /// A number in the machine's order: rtnetlink.
    pub(crate) fn native(kind: u16, value: u32) -> Self {
        Self::bytes(kind, value.to_ne_bytes())
    }

    /// A number in network order: nftables.
    pub(crate) fn number(kind: u16, value: u32) -> Self {
        Self::bytes(kind, value.to_be_bytes())
    }

    /// A text with its final zero byte.
    pub(crate) fn text(kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        Self::bytes(kind, bytes)
    }

    pub(crate) fn parent(kind: u16, children: Vec<Self>) -> Self {
        Self { kind, value: Value::Children(children) }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let flag = if matches!(self.value, Value::Children(_)) { NESTED } else { 0 };
        out.extend([0, 0]);
        out.extend((self.kind | flag).to_ne_bytes());
        match &self.value {
            Value::Bytes(bytes) => out.extend(bytes),
            Value::Children(children) => children.iter().for_each(|child| child.write(out)),
        }
        let length =
            u16::try_from(out.len() - start).expect("our attributes are a few hundred bytes");
        out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        out.resize(out.len().next_multiple_of(4), 0);
    }

    /// Whether `received`, a run of attributes, has this one with the same value. Children must all
    /// be there; the kernel may add others (a counter's packets).
    pub(crate) fn is_in(&self, received: &[u8]) -> bool {
        find(received, self.kind).is_some_and(|value| self.equals(self.kind, value))
    }

    /// Whether this is the received attribute, in the sense of [`Self::is_in`].
    pub(crate) fn equals(&self, kind: u16, received: &[u8]) -> bool {
        self.kind == kind
            && match &self.value {
                Value::Bytes(bytes) => bytes == received,
                Value::Children(children) => children.iter().all(|child| child.is_in(received)),
            }
    }
}

/// The value of the first attribute of `kind` in `received`.
pub(crate) fn find(received: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(received).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Kind and value of each attribute in `received`; ends at the first malformed one.
pub(crate) fn attributes(mut received: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = received.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND_MASK;
        let value = received.get(4..length)?;
        received = received.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub kind: u16,
    pub flags: u16,
    /// The fixed header that follows netlink's own: `nfgenmsg`, `rtmsg`, …
    pub header: Vec<u8>,
    pub attributes: Vec<Attribute>,
}

impl Message {
    fn write(&self, sequence: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([0; 4]);
        out.extend(self.kind.to_ne_bytes());
        out.extend((self.flags | REQUEST).to_ne_bytes());
        out.extend(sequence.to_ne_bytes());
        out.extend([0; 4]);
        out.extend(&self.header);
        self.attributes.iter().for_each(|attribute| attribute.write(out));
        let length = u32::try_from(out.len() - start).expect("our messages are a few kilobytes");
        out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// A connection to the kernel of the namespace that it was opened in.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

struct Answer {
    kind: u16,
    sequence: u32,
    payload: Vec<u8>,
}

impl Answer {
    /// What an acknowledgement says: nothing wrong, or an error number.
    fn status(&self) -> io::Result<()> {
        let code = self.payload.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
        if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
    }
}

impl Netlink {
    /// Opens a connection in the calling thread's namespace.
    pub(crate) fn open(family: Family) -> io::Result<Self> {
        let protocol = Protocol::from(family as i32);
        let socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW.cloexec(), Some(protocol))?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; 64 << 10] })
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn request(&mut self, mut message: Message) -> io::Result<()> {
        message.flags |= ACK;
        let sequence = self.send(&[message])?;
        loop {
            for answer in self.receive()? {
                if answer.sequence == sequence && answer.kind == NLMSG_ERROR {
                    return answer.status();
                }
            }
        }
    }

    /// Asks for a list; returns each entry from its fixed header on.
    pub(crate) fn dump(&mut self, mut message: Message) -> io::Result<Vec<Vec<u8>>> {
        message.flags |= DUMP;
        let sequence = self.send(&[message])?;
        let mut entries = Vec::new();
        loop {
            for answer in self.receive()?.into_iter().filter(|answer| answer.sequence == sequence) {
                match answer.kind {
                    NLMSG_DONE => return answer.status().map(|()| entries),
                    NLMSG_ERROR => answer.status()?,
                    _ => entries.push(answer.payload),
                }
            }
        }
    }

    /// Sends `messages` as one transaction between `begin` and `end`: all take effect or none.
    pub(crate) fn batch(
        &mut self,
        begin: Message,
        messages: &[Message],
        end: Message,
    ) -> io::Result<()> {
        let acknowledged = messages
            .iter()
            .map(|message| Message { flags: message.flags | ACK, ..message.clone() });
        let all: Vec<_> = std::iter::once(begin).chain(acknowledged).chain([end]).collect();
        let first = self.send(&all)?;
        // The transaction as a whole answers, if it fails, with the number of its first message.
        let mut missing = messages.len();
        let mut failed = None;
        while missing > 0 {
            for answer in self.receive()?.into_iter().filter(|answer| answer.kind == NLMSG_ERROR) {
                let Some(at) = answer.sequence.checked_sub(first) else { continue };
                missing -= usize::from(at != 0);
                if let Err(error) = answer.status() {
                    failed = failed.or(Some(error));
                    if at == 0 {
                        missing = 0;
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Sends all in one datagram; returns the number of the first.
    fn send(&mut self, messages: &[Message]) -> io::Result<u32> {
        let first = self.sequence + 1;
        let mut out = Vec::new();
        for message in messages {
            self.sequence += 1;
            message.write(self.sequence, &mut out);
        }
        let sent = self.socket.send(&out)?;
        if sent == out.len() { Ok(first) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn receive(&mut self) -> io::Result<Vec<Answer>> {
        let length = self.socket.read(&mut self.buffer)?;
        let mut rest = &self.buffer[..length];
        let mut answers = Vec::new();
        while let Some(header) = rest.first_chunk::<HEADER_BYTES>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let payload = rest.get(HEADER_BYTES..length).ok_or(io::ErrorKind::UnexpectedEof)?;
            answers.push(Answer {
                kind: u16::from_ne_bytes([header[4], header[5]]),
                sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
                payload: payload.to_vec(),
            });
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(attribute: &Attribute) -> Vec<u8> {
        let mut out = Vec::new();
        attribute.write(&mut out);
        out
    }

    #[test]
    fn an_attribute_is_found_in_what_it_wrote() {
        let tree = Attribute::parent(
            4,
            vec![Attribute::text(1, "lo"), Attribute::number(2, 0x111), Attribute::bytes(3, [7])],
        );
        assert!(tree.is_in(&written(&tree)));
        assert_eq!(written(&tree).len() % 4, 0);
    }

    #[test]
    fn another_value_and_a_missing_child_are_noticed() {
        let wanted = Attribute::parent(4, vec![Attribute::number(2, 1), Attribute::number(3, 1)]);
        for other in [
            Attribute::parent(4, vec![Attribute::number(2, 1)]),
            Attribute::parent(4, vec![Attribute::number(2, 1), Attribute::number(3, 2)]),
            Attribute::parent(5, vec![Attribute::number(2, 1), Attribute::number(3, 1)]),
        ] {
            assert!(!wanted.is_in(&written(&other)), "{other:?}");
        }
    }

    #[test]
    fn malformed_attributes_end_the_run() {
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[255, 255, 1, 0, 9]).count(), 0);
        assert_eq!(attributes(&[5, 0, 1, 0, 9]).collect::<Vec<_>>(), [(1, &[9_u8][..])]);
    }
}
