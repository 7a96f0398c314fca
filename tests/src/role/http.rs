//! A small HTTP/1.1 server with keep-alive: says who answered and whom it saw.
//! `GET /bytes/N` gives a body of N bytes; every other path a short text.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::servers::{self, Args};
use super::tls::Stream;

/// A text that must never be seen on the wire between nodes.
pub const PLAIN_MARK: &str = "culvert-plain-mark-2f61";

pub(super) async fn serve(args: Args) -> anyhow::Result<()> {
    let name = args.name.clone();
    servers::serve(args, async move |stream, peer| connection(stream, peer, &name).await).await
}

async fn connection(mut stream: Stream, peer: SocketAddr, name: &str) -> std::io::Result<()> {
    let mut heard = Vec::with_capacity(8192);
    let mut said = Vec::with_capacity(8192);
    loop {
        while let Some(end) = end_of_head(&heard) {
            let head = String::from_utf8_lossy(&heard[..end]).into_owned();
            heard.drain(..end);
            let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
            let close = head.to_ascii_lowercase().contains("connection: close")
                || head.contains("HTTP/1.0");
            respond(&mut said, &path, peer, name);
            stream.write_all(&said).await?;
            stream.flush().await?;
            said.clear();
            if close {
                return stream.shutdown().await;
            }
        }
        if stream.read_buf(&mut heard).await? == 0 {
            return stream.shutdown().await;
        }
    }
}

fn end_of_head(heard: &[u8]) -> Option<usize> {
    heard.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn respond(said: &mut Vec<u8>, path: &str, peer: SocketAddr, name: &str) {
    let body = match path.strip_prefix("/bytes/").and_then(|size| size.parse().ok()) {
        Some(size) => PLAIN_MARK.bytes().cycle().take(size).collect(),
        None => format!("{name} {peer} {PLAIN_MARK}\n").into_bytes(),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nserver: {name}\r\nx-peer: {peer}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    said.extend_from_slice(head.as_bytes());
    said.extend_from_slice(&body);
}
