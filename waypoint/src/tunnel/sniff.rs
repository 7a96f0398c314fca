//! Which protocol is inside a tunnel.
//!
//! On a port without a known protocol the first bytes decide. A client that stays silent waits for
//! the server's greeting: then the server is connected and may speak first; whatever the client says
//! before that is still looked at, so that nobody gets past HTTP routing by being slow. A client that
//! stops within what may become a request is taken for what that looks like most.
//! Source: spec L7 §1.5.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use shared::hbone::{Stream, StreamError};
use shared::mesh::AppProtocol;
use tokio::time::{Instant, timeout, timeout_at};

use crate::tcp;
use crate::tunnel::Client;
use crate::upstream::Io;

/// What is inside.
pub(super) enum Inside {
    /// HTTP/1.
    Http1,
    /// HTTP/2, by prior knowledge.
    Http2,
    /// Anything else; perhaps with a server that was connected already.
    Tcp(Option<Box<tcp::Connected>>),
}

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Request lines that are longer are told from other protocols no better.
const MOST_BYTES: usize = 64 << 10;
/// Of clients that stop within one of these, HTTP is expected (RFC 9110 §9.3, RFC 5789, RFC 9113).
const METHODS: [&[u8]; 10] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI",
];
/// No method of HTTP is longer.
const LONGEST_METHOD_BYTES: usize = 32;

/// Looks at the first bytes of `stream`, which stay in it.
///
/// # Errors
/// The stream ended before it said anything.
pub(super) async fn inside(
    client: &Rc<Client>,
    stream: &mut Stream,
) -> Result<Inside, StreamError> {
    let patience = client.worker.config().sniff_patience;
    match client.target.protocol() {
        AppProtocol::Tcp | AppProtocol::Tls => Ok(Inside::Tcp(None)),
        AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc => {
            // Whatever it is, an HTTP port answers it in HTTP.
            Ok(match first_bytes(stream, version, patience).await? {
                Guess::Http2 => Inside::Http2,
                _ => Inside::Http1,
            })
        }
        AppProtocol::Unknown => {
            let silence = client.worker.config().silence;
            match timeout(silence, first_bytes(stream, guess, patience)).await {
                Ok(guess) => Ok(of(guess?, None)),
                Err(_) => server_first(client, stream).await,
            }
        }
    }
}

/// Connects the server and waits for whoever speaks first.
async fn server_first(client: &Rc<Client>, stream: &mut Stream) -> Result<Inside, StreamError> {
    let patience = client.worker.config().sniff_patience;
    let Ok(mut connected) = tcp::connect(client, None).await else {
        return Ok(of(first_bytes(stream, guess, patience).await?, None));
    };
    let speaks = tokio::select! {
        guess = first_bytes(stream, guess, patience) => Some(guess?),
        () = readable(&mut connected.io, &mut connected.greeting) => None,
    };
    Ok(match speaks {
        None => Inside::Tcp(Some(Box::new(connected))),
        Some(guess) => of(guess, Some(connected)),
    })
}

fn of(guess: Guess, connected: Option<tcp::Connected>) -> Inside {
    match guess {
        Guess::Http1 => Inside::Http1,
        Guess::Http2 => Inside::Http2,
        Guess::Other | Guess::NeedsMore => Inside::Tcp(connected.map(Box::new)),
    }
}

async fn readable(io: &mut Io, greeting: &mut BytesMut) {
    use tokio::io::AsyncReadExt;
    // An end or an error is an answer, too: the copy meets it again.
    let _ = io.read_buf(greeting).await;
}

/// What the first bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guess {
    Http1,
    Http2,
    Other,
    NeedsMore,
}

/// Receives until the bytes tell what they are, for `patience` from the first one on, and puts them
/// back. Cancel safe: what was received is put back whenever the future is dropped.
async fn first_bytes(
    stream: &mut Stream,
    guess: fn(&[u8]) -> Guess,
    patience: Duration,
) -> Result<Guess, StreamError> {
    let mut peeked = Peeked::new(stream);
    let mut end = None;
    loop {
        let receive = poll_fn(|cx| peeked.stream.poll_recv(cx));
        let received = match end {
            None => receive.await?,
            Some(end) => match timeout_at(end, receive).await {
                Ok(received) => received?,
                Err(_) => return Ok(stopped(&peeked.bytes)),
            },
        };
        end.get_or_insert_with(|| Instant::now() + patience);
        let ended = received.is_none();
        peeked.bytes.extend_from_slice(&received.unwrap_or_default());
        match guess(&peeked.bytes) {
            Guess::NeedsMore if ended => return Ok(Guess::Other),
            Guess::NeedsMore if peeked.bytes.len() > MOST_BYTES => {
                return Ok(stopped(&peeked.bytes));
            }
            Guess::NeedsMore => {}
            known => return Ok(known),
        }
    }
}

/// A stream whose first bytes are looked at. They are put back when this is dropped.
pub(super) struct Peeked<'a> {
    pub(super) stream: &'a mut Stream,
    pub(super) bytes: BytesMut,
}

impl<'a> Peeked<'a> {
    pub(super) fn new(stream: &'a mut Stream) -> Self {
        Self { stream, bytes: BytesMut::new() }
    }
}

impl Drop for Peeked<'_> {
    fn drop(&mut self) {
        self.stream.unread(Bytes::from(std::mem::take(&mut self.bytes)));
    }
}

/// Which version of HTTP it is, as something else it cannot be.
fn version(bytes: &[u8]) -> Guess {
    let common = bytes.iter().zip(PREFACE).take_while(|(own, wanted)| own == wanted).count();
    match common {
        _ if common == PREFACE.len() => Guess::Http2,
        _ if common == bytes.len() => Guess::NeedsMore,
        _ => Guess::Http1,
    }
}

/// What bytes that need more are taken for when no more come.
fn stopped(bytes: &[u8]) -> Guess {
    let begins = METHODS.iter().any(|method| method.starts_with(bytes));
    if begins || bytes.contains(&b' ') { Guess::Http1 } else { Guess::Other }
}

fn guess(bytes: &[u8]) -> Guess {
    match version(bytes) {
        Guess::Http1 => {}
        known => return known,
    }
    let method = bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len());
    // RFC 9110 §5.6.2; methods need no capitals.
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if method > LONGEST_METHOD_BYTES || !bytes[..method].iter().all(token) || method == 0 {
        return Guess::Other;
    }
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Guess::NeedsMore;
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    if version.starts_with(b"HTTP/1.") { Guess::Http1 } else { Guess::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_from_everything_else_as_early_as_possible() {
        for (bytes, expected) in [
            (&b""[..], Guess::NeedsMore),
            (b"G", Guess::NeedsMore),
            (b"GET / HTTP/1.", Guess::NeedsMore),
            (b"GET / HTTP/1.1\r\n", Guess::Http1),
            (b"PROPFIND /a b HTTP/1.0\n", Guess::Http1),
            (b"get / HTTP/1.1\r\n", Guess::Http1),
            (b"x!1 / HTTP/1.1\r\n", Guess::Http1),
            (b"hello", Guess::NeedsMore),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0", Guess::Http2),
            (b"PRI * HTTP", Guess::NeedsMore),
            (b"PING\r\n", Guess::Other),
            (b"\x16\x03\x01", Guess::Other),
            (b"*1\r\n$4\r\nPING\r\n", Guess::Other),
            (b"SSH-2.0-OpenSSH_9\r\n", Guess::Other),
            (b"GET / FTP/1.1\r\n", Guess::Other),
            (&[b'A'; 40], Guess::Other),
        ] {
            assert_eq!(guess(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_stops_is_taken_for_what_it_looks_like() {
        for (bytes, expected) in [
            (&b"G"[..], Guess::Http1),
            (b"OPTIONS", Guess::Http1),
            (b"PRI * HT", Guess::Http1),
            (b"X /admin", Guess::Http1),
            (b"hello", Guess::Other),
            (b"HELLO", Guess::Other),
        ] {
            assert_eq!(stopped(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_port_of_http_waits_for_nothing_but_the_preface() {
        for (bytes, expected) in [
            (&b""[..], Guess::NeedsMore),
            (b"P", Guess::NeedsMore),
            (b"PO", Guess::Http1),
            (b"G", Guess::Http1),
            (b"\x16", Guess::Http1),
            (PREFACE, Guess::Http2),
        ] {
            assert_eq!(version(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
