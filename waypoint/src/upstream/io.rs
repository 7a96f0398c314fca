//! The byte stream to an application: a tunnel's, a plain one, or TLS over one of them.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use shared::hbone::{Reason, Stream, StreamError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::cluster::Permit;

/// A byte stream to an application, and its place among the connections of its destination.
#[derive(Debug)]
pub(crate) struct Io {
    pub(super) link: Link,
    pub(super) _permit: Option<Permit>,
}

/// A byte stream.
#[derive(Debug)]
pub(super) enum Link {
    /// Through its proxy.
    Tunnel(Stream, Mark),
    /// To an application outside the mesh.
    Plain(TcpStream),
    /// TLS that the application speaks, over either.
    Secured(Box<TlsStream<Self>>),
}

/// Whether the application's proxy has said that the application took no byte of a stream
/// (design D8). Only a tunnel can say it, whose other end has proved to be the workload that is meant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mark(Rc<Cell<bool>>);

impl Mark {
    /// Nothing was delivered, of whatever was sent.
    pub(crate) fn is_set(&self) -> bool {
        self.0.get()
    }

    fn note<T>(&self, polled: Poll<Result<T, StreamError>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(StreamError::Reset(Reason::REFUSED_STREAM))) = &polled {
            self.0.set(true);
        }
        polled.map_err(io::Error::from)
    }
}

impl Io {
    /// What is told of its delivery, also when the stream itself is gone.
    pub(crate) fn mark(&self) -> Mark {
        self.link.mark()
    }
}

impl Link {
    fn mark(&self) -> Mark {
        match self {
            Self::Tunnel(_, mark) => mark.clone(),
            Self::Plain(_) => Mark::default(),
            Self::Secured(stream) => stream.get_ref().0.mark(),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        payload: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().link).poll_write(cx, payload)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link).poll_shutdown(cx)
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tunnel(stream, mark) => {
                let read = stream.poll_read_into(cx, buffer);
                mark.note(read)
            }
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Secured(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        payload: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tunnel(stream, mark) => mark.note(stream.poll_send(cx, payload)),
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, payload),
            Self::Secured(stream) => Pin::new(stream).poll_write(cx, payload),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tunnel(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tunnel(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use shared::hbone::{Config, Plain, Request, Server, client};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    /// A tunnel whose other end resets the first stream with `reason`, after it has heard `heard`.
    async fn reset(reason: Reason, heard: &'static [u8]) -> (io::Error, Mark) {
        let (near, far) = duplex(1 << 16);
        let (client, driver) = client(Plain(near), Config::client());
        spawn_local(driver);
        spawn_local(async move {
            let mut server = Server::new(Plain(far), Config::server());
            let incoming = server.accept().await.unwrap().unwrap();
            let mut stream = incoming.accept(&HeaderMap::new());
            let mut payload = vec![0; heard.len()];
            spawn_local(async move {
                stream.read_exact(&mut payload).await.unwrap();
                stream.reset(reason);
            });
            while server.accept().await.is_some() {}
        });
        let request = Request { authority: "10.0.0.1:80".into(), headers: HeaderMap::new() };
        let (_, stream) = client.open(&request).await.unwrap();
        let link = Link::Tunnel(stream, Mark::default());
        let mut io = Io { link, _permit: None };
        let mark = io.mark();
        io.write_all(heard).await.unwrap();
        (io.read_u8().await.unwrap_err(), mark)
    }

    #[tokio::test]
    async fn only_the_proxys_word_says_that_nothing_was_delivered() {
        LocalSet::new()
            .run_until(async {
                for (reason, expected) in [
                    (Reason::REFUSED_STREAM, true),
                    (Reason::CANCEL, false),
                    (Reason::INTERNAL_ERROR, false),
                    (Reason::NO_ERROR, false),
                ] {
                    let (_, mark) = reset(reason, b"hello").await;
                    assert_eq!(mark.is_set(), expected, "{reason}");
                }
            })
            .await;
    }
}
