//! HTTP/1.1 requests from within a pod, one connection each, nothing hidden.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::netns::NetNs;
use crate::pod::Pod;
use crate::role::app::Seen;

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    to: SocketAddr,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Ask {
    /// `GET path` of whatever is at `to`; Host is `to` unless set.
    #[must_use]
    pub fn get(to: SocketAddr, path: &str) -> Self {
        let (method, path) = ("GET".to_owned(), path.to_owned());
        Self { to, method, path, headers: Vec::new(), body: Vec::new() }
    }

    /// With another method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// With a header more.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    /// Sends it from `pod` and reads the answer to its end.
    ///
    /// # Errors
    /// No connection, or no HTTP.
    pub fn from(&self, pod: &Pod) -> io::Result<Answer> {
        self.within(pod.netns())
    }

    /// The same from a network namespace.
    ///
    /// # Errors
    /// No connection, or no HTTP.
    pub fn within(&self, namespace: &NetNs) -> io::Result<Answer> {
        namespace.run(|| {
            let mut stream = TcpStream::connect_timeout(&self.to, Duration::from_secs(5))?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            stream.write_all(&self.bytes())?;
            let mut said = Vec::new();
            stream.read_to_end(&mut said)?;
            Answer::parse(&said, &self.method)
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        let has = |name: &str| self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        if !has("host") {
            text.push_str(&format!("Host: {}\r\n", self.to));
        }
        if !has("connection") {
            text.push_str("Connection: close\r\n");
        }
        if !self.body.is_empty() && !has("transfer-encoding") {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        [text.as_bytes(), &self.body].concat()
    }
}

impl Answer {
    fn parse(said: &[u8], method: &str) -> io::Result<Self> {
        let broken = |what: &str| {
            let shown = String::from_utf8_lossy(&said[..said.len().min(200)]).into_owned();
            io::Error::other(format!("{what}: {shown:?}"))
        };
        let mut rest = said;
        loop {
            let end = rest.windows(4).position(|four| four == b"\r\n\r\n");
            let end = end.ok_or_else(|| broken("no head"))?;
            let head = String::from_utf8_lossy(&rest[..end]).into_owned();
            rest = &rest[end + 4..];
            let mut lines = head.split("\r\n");
            let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
            let status: u16 = status.ok_or_else(|| broken("no status"))?;
            // RFC 9110 §15.2: an interim answer comes before the final one.
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            let value = |name: &str| {
                headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
            };
            let body = if value("transfer-encoding") == Some("chunked") {
                unchunked(rest).ok_or_else(|| broken("a broken chunk"))?
            } else {
                let length = value("content-length").and_then(|length| length.parse().ok());
                let length = if method == "HEAD" { 0 } else { length.unwrap_or(rest.len()) };
                rest.get(..length).ok_or_else(|| broken("a body that is cut short"))?.to_vec()
            };
            return Ok(Self { status, headers, body });
        }
    }

    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// What the application of [`crate::role::app`] saw.
    ///
    /// # Errors
    /// It was not that application that answered.
    pub fn seen(&self) -> anyhow::Result<Seen> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let text = String::from_utf8_lossy(&self.body);
            anyhow::anyhow!("{error}: status {} with {text:?}", self.status)
        })
    }
}

/// RFC 9112 §7.1, without extensions; trailers are left out.
fn unchunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line = body.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&body[..line]).ok()?, 16).ok()?;
        body = &body[line + 2..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(..size)?);
        body = body.get(size..)?.strip_prefix(b"\r\n")?;
    }
}
