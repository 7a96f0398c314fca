//! The bytes of a client on a connection of HTTP/1.1, up to the bytes for an endpoint.
//!
//! Laws: nothing panics; whatever was refused is answered and nothing of it is routed; a request that
//! was admitted has one Host and a normal path, and goes by the rule that its path says; what is
//! written for an endpoint is, to a strict reader, that one request with that body and nothing more.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1 as client;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use shared::mesh::{HttpMatch, Mesh, PathMatch, sample, writer};
use tokio::io::{AsyncRead as _, AsyncWrite as _, DuplexStream, ReadBuf, duplex};
use waypoint::node::Config;
use waypoint::request::{BadRequest, reading};
use waypoint::router::{Routed, Table};

use crate::planted;

/// As much as the fuzzers give, and all that is made of it.
const MOST_BYTES: usize = 1 << 20;

/// A request that was admitted, with all of its body.
struct Admitted {
    parts: Parts,
    body: Bytes,
}

/// Checks the laws on one input.
pub fn check(input: &[u8]) {
    let admitted = read(input);
    let table = table();
    for one in admitted {
        routed(&table, &one.parts);
        written(one);
    }
}

/// What the waypoint would send on of these bytes.
fn read(input: &[u8]) -> Vec<Admitted> {
    let (near, far) = duplex(MOST_BYTES);
    let admitted = Rc::new(RefCell::new(Vec::new()));
    let refused = Rc::new(RefCell::new(0));
    let seen = (Rc::clone(&admitted), Rc::clone(&refused));
    let service = service_fn(move |request| {
        let (admitted, refused) = (Rc::clone(&seen.0), Rc::clone(&seen.1));
        async move {
            let status = match take(request).await {
                Ok(one) => {
                    admitted.borrow_mut().push(one);
                    StatusCode::OK
                }
                Err(()) => {
                    *refused.borrow_mut() += 1;
                    StatusCode::BAD_REQUEST
                }
            };
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    let connection =
        reading::parser(&Config::default()).serve_connection(TokioIo::new(far), service);
    let mut connection = Box::pin(connection);
    let mut client = Client { stream: near, said: input.to_vec(), heard: Vec::new() };
    let woken = Arc::new(Woken::default());
    client.turn();
    while woken.poll(connection.as_mut()).is_pending() {
        if !(client.turn() | woken.was()) {
            break;
        }
    }
    client.turn();
    drop(connection);
    // One of HTTP/1.0 is told so in its own version.
    let is_answer = |part: &&[u8]| *part == b"HTTP/1.1 " || *part == b"HTTP/1.0 ";
    let answers = client.heard.windows(9).filter(is_answer).count();
    let counted = admitted.borrow().len() + *refused.borrow();
    assert!(answers >= counted, "{answers} answers to {counted} requests");
    admitted.take()
}

async fn take(mut request: Request<Incoming>) -> Result<Admitted, ()> {
    match reading::admit(&mut request, &Config::default()) {
        Ok(()) => {}
        Err(error) => {
            assert!(!error.to_string().is_empty());
            planted(error == BadRequest::Path("it leads above the root"));
            return Err(());
        }
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| ())?.to_bytes();
    Ok(Admitted { parts, body })
}

/// Rules by path: where a request goes is plain to see.
fn table() -> Table {
    let service = sample::service("web", "ns");
    let rule = |path| {
        let one = HttpMatch { path, ..HttpMatch::everything() };
        sample::rule(vec![one], &service.key)
    };
    let rules =
        vec![rule(PathMatch::Exact("/admin".into())), rule(PathMatch::Prefix("/open".into()))];
    let (mut writer, _reader) = writer();
    writer.apply([sample::route("r", "ns", &service.key, rules).into()]);
    let mesh: &Mesh = writer.mesh();
    Table::compile(mesh, &service)
}

fn routed(table: &Table, parts: &Parts) {
    let path = parts.uri.path();
    let expected = match path {
        "/admin" => Some(0),
        _ if path == "/open" || path.starts_with("/open/") => Some(1),
        _ => None,
    };
    let found = match table.route(80, Some("ns"), parts) {
        Routed::Rule(matched) => Some(matched.rule.at()),
        Routed::Default | Routed::NoMatch => None,
    };
    assert_eq!(found, expected, "{path}");
    let normal = path == "*" || (path.starts_with('/') && !dotted(path) && !path.contains('\\'));
    assert!(normal, "{path:?} is not normal");
    assert!(parts.headers.get_all(HOST).iter().count() == 1, "{:?}", parts.headers);
}

fn dotted(path: &str) -> bool {
    path.split('/').any(|segment| segment == "." || segment == "..")
}

/// Writes a request as for an endpoint, and reads it strictly.
fn written(one: Admitted) {
    let Admitted { mut parts, body } = one;
    if parts.headers.contains_key(http::header::UPGRADE) {
        // Its connection becomes something else.
        return;
    }
    reading::to_upstream(&mut parts, !body.is_empty());
    let (method, target) = (parts.method.clone(), target(&parts));
    let known = parts.headers.contains_key(CONTENT_LENGTH) || body.is_empty();
    let bytes = match known {
        true => send(Request::from_parts(parts, Full::new(body.clone()))),
        false => {
            let frame = Ok::<_, Infallible>(Frame::data(body.clone()));
            let stream = StreamBody::new(futures_util::stream::iter([frame]));
            send(Request::from_parts(parts, stream))
        }
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let found = strictly(&bytes).unwrap_or_else(|why| panic!("{why}: {text:?}"));
    assert_eq!((found.method, found.target), (method.as_str(), &*target), "{text:?}");
    assert_eq!(found.body, body, "{text:?}");
}

fn target(parts: &Parts) -> String {
    // RFC 9112 §3.2.1: a path that is left out is a slash.
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{query}", parts.uri.path())
}

fn send<B>(request: Request<B>) -> Vec<u8>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (near, far) = duplex(MOST_BYTES);
    let mut endpoint = Client { stream: near, said: Vec::new(), heard: Vec::new() };
    let woken = Arc::new(Woken::default());
    let handshake = woken.poll(Box::pin(client::handshake(TokioIo::new(far))).as_mut());
    let Poll::Ready(Ok((mut sender, connection))) = handshake else {
        panic!("nothing to wait for")
    };
    let mut connection = Box::pin(connection);
    let mut answer = Box::pin(sender.send_request(request));
    loop {
        let over =
            woken.poll(answer.as_mut()).is_ready() | woken.poll(connection.as_mut()).is_ready();
        if over || !(endpoint.turn() | woken.was()) {
            break;
        }
    }
    endpoint.turn();
    endpoint.heard
}

/// Whether there is something to poll again for.
#[derive(Default)]
struct Woken(AtomicBool);

impl Woken {
    fn poll<F: Future + ?Sized>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(self));
        future.poll(&mut Context::from_waker(&waker))
    }

    /// Since it was last asked.
    fn was(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The other side of a connection: says all it has, and hears everything.
struct Client {
    stream: DuplexStream,
    said: Vec<u8>,
    heard: Vec<u8>,
}

impl Client {
    /// True when anything moved.
    fn turn(&mut self) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut moved = false;
        while !self.said.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.said) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.said.drain(..count);
                    moved = true;
                }
                _ => break,
            }
        }
        let mut buffer = [0; 4096];
        loop {
            let mut read = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    self.heard.extend_from_slice(read.filled());
                    moved = true;
                }
                _ => return moved,
            }
        }
    }
}

/// One request, as RFC 9112 has it without any of what it lets recipients forgive.
struct Strict<'a> {
    method: &'a str,
    target: &'a str,
    body: Vec<u8>,
}

fn strictly(bytes: &[u8]) -> Result<Strict<'_>, &'static str> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no end of the head")?;
    // Values may hold what is no text; the rest may not.
    let mut lines = bytes[..end].split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    let line = std::str::from_utf8(lines.next().unwrap_or_default()).map_err(|_| "no text")?;
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1"), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("no request line");
    };
    let (mut lengths, mut codings, mut hosts) = (Vec::new(), Vec::new(), 0);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').ok_or("no colon")?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let is_token =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.iter().all(is_token) {
            return Err("a name that is none");
        }
        if value.iter().any(|byte| *byte < b' ' && *byte != b'\t' || *byte == 0x7f) {
            return Err("a value that is none");
        }
        let is = |wanted: &http::HeaderName| name.eq_ignore_ascii_case(wanted.as_str().as_bytes());
        match () {
            () if is(&CONTENT_LENGTH) => lengths.push(value),
            () if is(&TRANSFER_ENCODING) => codings.push(value),
            () if is(&HOST) => hosts += 1,
            () => {}
        }
    }
    if hosts != 1 {
        return Err("not one host");
    }
    let rest = &bytes[end + 4..];
    let body = match (&*lengths, &*codings) {
        ([], []) if rest.is_empty() => Vec::new(),
        ([length], []) => {
            let digits = length.iter().all(u8::is_ascii_digit) && !length.is_empty();
            let length = std::str::from_utf8(length).ok().filter(|_| digits);
            if length.and_then(|length| length.parse().ok()) != Some(rest.len()) {
                return Err("not the length that is said");
            }
            rest.to_vec()
        }
        ([], [b"chunked"]) => chunks(rest)?,
        _ => return Err("two framings, or bytes after the end"),
    };
    Ok(Strict { method, target, body })
}

fn chunks(mut rest: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").ok_or("no end of a size")?;
        let size = std::str::from_utf8(&rest[..end]).map_err(|_| "a size that is no text")?;
        let size = usize::from_str_radix(size, 16).map_err(|_| "a size that is no number")?;
        rest = &rest[end + 2..];
        if size == 0 {
            return if rest == b"\r\n" { Ok(body) } else { Err("bytes after the end") };
        }
        let chunk = rest.get(..size).ok_or("a chunk that is cut")?;
        body.extend_from_slice(chunk);
        rest = rest[size..].strip_prefix(b"\r\n").ok_or("no end of a chunk")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(name: &str) -> Vec<u8> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/http_exchange/");
        std::fs::read(format!("{dir}{name}")).expect("a seed")
    }

    #[test]
    fn seeds_are_read_for_what_they_are() {
        for (name, expected) in [
            ("pipeline", vec![("/admin", ""), ("/open/x", "ok"), ("/", "")]),
            ("chunks", vec![("/open", "hello")]),
            ("get_chunks", vec![("/open", "hello")]),
            ("dots", vec![("/open/admin", "")]),
            ("lengths", vec![("/open", "hello")]),
        ] {
            let found = read(&seed(name));
            let found: Vec<_> =
                found.iter().map(|one| (one.parts.uri.path(), &*one.body)).collect();
            let expected: Vec<_> =
                expected.into_iter().map(|(path, body)| (path, body.as_bytes())).collect();
            assert_eq!(found, expected, "{name}");
        }
        assert!(read(b"GET /../x HTTP/1.1\r\nHost: lab\r\n\r\n").is_empty());
    }

    #[test]
    fn a_strict_reader_accepts_one_framing_alone() {
        let head = "POST / HTTP/1.1\r\nhost: lab\r\n";
        let good = format!("{head}content-length: 2\r\n\r\nok");
        assert_eq!(strictly(good.as_bytes()).map(|found| found.body), Ok(b"ok".to_vec()));
        for bad in [
            "content-length: 2\r\n\r\nok!",
            "content-length: +2\r\n\r\nok",
            "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
            "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nGET",
            "host: other\r\n\r\n",
            "x y: 1\r\n\r\n",
        ] {
            assert!(strictly(format!("{head}{bad}").as_bytes()).is_err(), "{bad:?}");
        }
    }
}
