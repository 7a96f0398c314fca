//! A connection whose every byte is the test's: for what no library would send, and for seeing
//! exactly what came.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::asking::Answer;
use crate::pod::Pod;

/// Longer than anything that is bound to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection, and what was read ahead of it.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    ahead: Vec<u8>,
}

/// A request, as a server reads it.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Request line and headers, without the empty line.
    pub head: String,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

impl Wire {
    /// Connects from within `pod`.
    ///
    /// # Errors
    /// Nobody answers there.
    pub fn open(pod: &Pod, to: SocketAddr) -> io::Result<Self> {
        pod.netns().run(|| TcpStream::connect_timeout(&to, PATIENCE)).and_then(Self::of)
    }

    /// A connection that is there.
    ///
    /// # Errors
    /// It is gone already.
    pub fn of(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, ahead: Vec::new() })
    }

    /// The socket itself, of which nothing may have been read.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Another handle of the socket.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn stream(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// How many bytes were read ahead of what was asked for.
    #[must_use]
    pub fn ahead(&self) -> usize {
        self.ahead.len()
    }

    /// Sends.
    ///
    /// # Errors
    /// The other side does not take it.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends no more.
    ///
    /// # Errors
    /// It is gone already.
    pub fn finish(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// The other side ends before.
    pub fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < count {
            if !self.more()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.ahead.drain(..count).collect())
    }

    /// All bytes up to and including `end`; none when the other side has ended.
    ///
    /// # Errors
    /// It ends in the middle.
    pub fn until(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.ahead.windows(end.len()).position(|window| window == end) {
                return Ok(Some(self.ahead.drain(..at + end.len()).collect()));
            }
            if !self.more()? {
                let whole = self.ahead.is_empty();
                return if whole { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// All bytes to the end of the connection.
    ///
    /// # Errors
    /// It was reset, or does not end.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.more()? {}
        Ok(std::mem::take(&mut self.ahead))
    }

    /// The next answer to `method`, an interim one too.
    ///
    /// # Errors
    /// There is none, or it is cut short.
    pub fn answer(&mut self, method: &str) -> io::Result<Answer> {
        let head = self.until(b"\r\n\r\n")?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status: u16 = status.ok_or_else(|| io::Error::other(format!("no status: {head:?}")))?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        let body = if bodiless { Vec::new() } else { self.body(&head, true)? };
        Ok(Answer { status, headers, body })
    }

    /// The next request; none when the other side has ended.
    ///
    /// # Errors
    /// It is cut short.
    pub fn request(&mut self) -> io::Result<Option<Heard>> {
        let Some(head) = self.until(b"\r\n\r\n")? else { return Ok(None) };
        let head = String::from_utf8_lossy(&head).trim_end().to_owned();
        let body = self.body(&head, false)?;
        Ok(Some(Heard { head, body }))
    }

    fn body(&mut self, head: &str, until_end: bool) -> io::Result<Vec<u8>> {
        let head = head.to_ascii_lowercase();
        let value = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        if value("transfer-encoding:").is_some_and(|coding| coding == "chunked") {
            return self.chunks();
        }
        match value("content-length:").map(|length| length.parse()) {
            Some(Ok(length)) => self.take(length),
            Some(Err(_)) => Err(io::Error::other("a content-length that is no number")),
            None if until_end => self.rest(),
            None => Ok(Vec::new()),
        }
    }

    /// RFC 9112 §7.1; trailers are read and left out.
    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut whole = Vec::new();
        loop {
            let line = self.until(b"\r\n")?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let size = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
            if size == 0 {
                while self.until(b"\r\n")?.is_some_and(|line| line != b"\r\n") {}
                return Ok(whole);
            }
            whole.extend(self.take(size)?);
            self.take(2)?;
        }
    }

    fn more(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 65536];
        let read = self.stream.read(&mut buffer)?;
        self.ahead.extend_from_slice(&buffer[..read]);
        Ok(read > 0)
    }
}

impl Heard {
    /// The first value of a header, whose name is given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let found = lines.find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    }
}
