//! One HTTP/1.1 connection of the load generator.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection that is kept between requests.
pub(super) struct Connection {
    stream: TcpStream,
    host: String,
    heard: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(target: SocketAddr, host: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(target).await.map_err(|error| kind("connect", &error))?;
        stream.set_nodelay(true).map_err(|error| kind("connect", &error))?;
        Ok(Self { stream, host: host.to_owned(), heard: Vec::with_capacity(16384) })
    }

    /// Sends one request, reads the whole answer, gives the name of the server.
    pub(super) async fn get(&mut self, path: &str) -> Result<String, String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.host);
        let sent = self.stream.write_all(request.as_bytes()).await;
        sent.map_err(|error| kind("send", &error))?;
        self.heard.clear();
        loop {
            if let Some(end) = self.heard.windows(4).position(|window| window == b"\r\n\r\n") {
                return self.answer(end + 4).await;
            }
            self.read().await?;
        }
    }

    async fn answer(&mut self, body: usize) -> Result<String, String> {
        let head = String::from_utf8_lossy(&self.heard[..body]).into_owned();
        if !head.starts_with("HTTP/1.1 200") {
            return Err(format!("status {}", head.split(' ').nth(1).unwrap_or_default()));
        }
        let field = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().to_owned())
        };
        let length = field("content-length").and_then(|length| length.parse::<usize>().ok());
        let length = length.ok_or_else(|| "no content-length".to_owned())?;
        while self.heard.len() < body + length {
            self.read().await?;
        }
        Ok(field("server").unwrap_or_default())
    }

    async fn read(&mut self) -> Result<(), String> {
        match self.stream.read_buf(&mut self.heard).await {
            Ok(0) => Err("closed before the answer".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(kind("read", &error)),
        }
    }

    pub(super) async fn close(mut self) -> Result<(), String> {
        self.stream.shutdown().await.map_err(|error| kind("close", &error))?;
        let mut rest = [0; 1024];
        match self.stream.read(&mut rest).await {
            Ok(0) => Ok(()),
            Ok(_) => Err("bytes after the answer".to_owned()),
            Err(error) => Err(kind("close", &error)),
        }
    }
}

fn kind(what: &str, error: &io::Error) -> String {
    format!("{what}: {:?}", error.kind())
}
