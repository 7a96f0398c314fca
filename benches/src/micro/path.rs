//! The byte path from application to application, all of it in one thread.
//!
//! ```text
//! client ─TCP─ copy ─ tunnel ─ TLS ─TCP─ TLS ─ tunnel ─ copy ─TCP─ echo
//! ```
//!
//! Not here: capture, decisions, logs: what a connection costs once, before its first byte.

use std::future::poll_fn;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use bytes::BytesMut;
use http::HeaderMap;
use shared::hbone::{self, Client, Config, Request, Server};
use shared::identity::{SpiffeId, TrustDomain, WorkloadCertificate, test_util::TestCa};
use shared::tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use ztunnel::copy::{Copy, Counters, Endpoint};

/// A tunnel to a node whose applications echo.
pub struct Path {
    client: Client,
}

/// A connection through it, seen by the application that opened it.
pub struct Connection(TcpStream);

impl Path {
    /// Shakes hands. Call it within a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// When loopback or TLS fails.
    pub async fn open() -> anyhow::Result<Self> {
        let (near, far) = certificates()?;
        let (from, to) = sockets().await?;
        let ours = near.client_config(std::slice::from_ref(far.identity()));
        let (from, to) =
            tokio::join!(tls::connect(from, ours), tls::accept(to, far.server_config()));
        let (client, driver) = hbone::client(from?.0, Config::client());
        spawn_local(driver);
        spawn_local(serve(Server::new(to?.0, Config::server())));
        Ok(Self { client })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When the tunnel is refused.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let request = Request { authority: "10.0.0.1:80".into(), headers: HeaderMap::new() };
        let (response, stream) = self.client.open(&request).await?;
        if !response.status.is_success() {
            bail!("the tunnel is refused: {}", response.status);
        }
        let (application, near) = sockets().await?;
        spawn_local(copy(near, stream));
        Ok(Connection(application))
    }
}

impl Connection {
    /// One without a tunnel: through a copy loop from socket to socket.
    ///
    /// # Errors
    /// When loopback fails.
    pub async fn plain() -> anyhow::Result<Self> {
        let (application, near) = sockets().await?;
        let (far, other) = sockets().await?;
        spawn_local(echo(other));
        spawn_local(copy(near, far));
        Ok(Self(application))
    }

    /// Sends `request` and reads as much into `answer`.
    ///
    /// # Errors
    /// When the connection is cut.
    pub async fn ask(&mut self, request: &[u8], answer: &mut [u8]) -> anyhow::Result<()> {
        let (mut reader, mut writer) = self.0.split();
        let (sent, received) = tokio::join!(
            writer.write_all(request),
            reader.read_exact(&mut answer[..request.len()])
        );
        sent?;
        received?;
        Ok(())
    }
}

/// 256 KiB: more than is on the way at a time, so that nobody waits.
const MEMORY_BYTES: usize = 256 << 10;

/// Two ends of a TLS connection in memory.
pub struct Sealed {
    near: tls::Stream<DuplexStream>,
    far: tls::Stream<DuplexStream>,
}

impl Sealed {
    /// Shakes hands.
    ///
    /// # Errors
    /// When TLS fails.
    pub async fn open() -> anyhow::Result<Self> {
        let (near, far) = certificates()?;
        let (from, to) = duplex(MEMORY_BYTES);
        let ours = near.client_config(std::slice::from_ref(far.identity()));
        let (from, to) =
            tokio::join!(tls::connect(from, ours), tls::accept(to, far.server_config()));
        Ok(Self { near: from?.0, far: to?.0 })
    }

    /// Seals `bytes` at one end and opens them at the other.
    ///
    /// # Errors
    /// None in practice: nobody is between the ends.
    pub async fn carry(&mut self, bytes: &[u8], into: &mut [u8]) -> anyhow::Result<()> {
        let mut output = BytesMut::from(bytes);
        poll_fn(|cx| self.near.poll_write(cx, &mut output)).await?;
        let mut rest = &mut into[..bytes.len()];
        while !rest.is_empty() {
            let part = poll_fn(|cx| self.far.poll_read(cx)).await?;
            ensure!(!part.is_empty() && part.len() <= rest.len(), "too few or too many bytes");
            let (filled, after) = rest.split_at_mut(part.len());
            filled.copy_from_slice(&part);
            rest = after;
        }
        Ok(())
    }
}

/// The certificates of two workloads of one mesh.
///
/// # Errors
/// None in practice: the names are right.
pub fn certificates() -> anyhow::Result<(Arc<WorkloadCertificate>, Arc<WorkloadCertificate>)> {
    let authority = TestCa::new(&TrustDomain::default());
    let issue = |name: &str| -> anyhow::Result<_> {
        let id = SpiffeId::new(TrustDomain::default(), "team", name)?;
        Ok(Arc::new(authority.issue(&id)))
    };
    Ok((issue("near")?, issue("far")?))
}

async fn sockets() -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listen on loopback")?;
    let address = listener.local_addr()?;
    let (from, to) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (from, to) = (from?, to?.0);
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    Ok((from, to))
}

async fn serve<T: hbone::Transport + Unpin>(mut server: Server<T>) {
    while let Some(Ok(incoming)) = server.accept().await {
        let stream = incoming.accept(&HeaderMap::new());
        spawn_local(async move {
            let Ok((far, application)) = sockets().await else { return };
            spawn_local(echo(application));
            copy(far, stream).await;
        });
    }
}

async fn copy(socket: TcpStream, far: impl Endpoint) {
    let counters = Counters::default();
    // Who measures sees the other end of the connection fail.
    let _ = Copy::new(socket, far, &counters).await;
}

async fn echo(mut application: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = application.read(&mut buffer).await {
        if application.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
