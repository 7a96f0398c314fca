//! A way from clients to an application, through somebody else's proxy and one of ours. Both of its
//! ends are sockets of this process, made inside of the namespaces that they belong to.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use harness::netns::NetNs;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::LocalSet;
use tokio::time::timeout;

/// However busy the machine is, nothing on a line takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Line<'a> {
    clients: &'a NetNs,
    target: SocketAddr,
    application: TcpListener,
}

/// What clients connect to, and from where; what the application listens on, and where.
pub(crate) struct Ends<'a> {
    pub(crate) clients: &'a NetNs,
    pub(crate) target: SocketAddr,
    pub(crate) servers: &'a NetNs,
    pub(crate) listen: SocketAddr,
}

impl Ends<'_> {
    /// Plays `scene` between the ends.
    pub(crate) fn play(
        &self,
        scene: impl AsyncFnOnce(&Line<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async {
            let socket = self.servers.run(|| {
                let socket = TcpSocket::new_v4()?;
                socket.set_reuseaddr(true)?;
                socket.bind(self.listen)?;
                Ok(socket)
            })?;
            let application = socket.listen(4096)?;
            let line = Line { clients: self.clients, target: self.target, application };
            timeout(PATIENCE, scene(&line)).await.context("the scene does not come to its end")?
        })
    }
}

impl Line<'_> {
    /// A client's new connection.
    pub(crate) async fn open(&self) -> anyhow::Result<TcpStream> {
        let socket = self.clients.run(TcpSocket::new_v4)?;
        let stream = socket.connect(self.target).await.context("connecting")?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// The application's next connection.
    pub(crate) async fn accept(&self) -> anyhow::Result<TcpStream> {
        let (stream, _) = self.application.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A client's new connection, and the application's end of it.
    pub(crate) async fn pair(&self) -> anyhow::Result<(TcpStream, TcpStream)> {
        let client = self.open().await?;
        Ok((client, self.accept().await?))
    }
}
