//! A way from clients to an application, through somebody else's proxy and one of ours. Both of its
//! ends are sockets of this process, made inside of the namespaces that they belong to.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use harness::netns::NetNs;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::LocalSet;
use tokio::time::timeout;

/// However busy the machine is, nothing on a line takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Line<'a> {
    clients: &'a NetNs,
    target: SocketAddr,
    application: TcpListener,
    opened: Cell<usize>,
}

/// What clients connect to, and from where; what the application listens on, and where.
pub(crate) struct Ends<'a> {
    pub(crate) clients: &'a NetNs,
    pub(crate) target: SocketAddr,
    pub(crate) servers: &'a NetNs,
    pub(crate) listen: SocketAddr,
}

impl Ends<'_> {
    /// Plays `scene` between the ends; gives the number of connections that it opened.
    pub(crate) fn play(
        &self,
        scene: impl AsyncFnOnce(&Line<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async {
            let socket = self.servers.run(|| {
                let socket = TcpSocket::new_v4()?;
                socket.set_reuseaddr(true)?;
                socket.bind(self.listen)?;
                Ok(socket)
            })?;
            let application = socket.listen(4096)?;
            let (clients, target, opened) = (self.clients, self.target, Cell::new(0));
            let line = Line { clients, target, application, opened };
            timeout(PATIENCE, scene(&line))
                .await
                .context("the scene does not come to its end")??;
            Ok(line.opened.get())
        })
    }
}

impl Line<'_> {
    /// A client's new connection.
    pub(crate) async fn open(&self) -> anyhow::Result<TcpStream> {
        self.connect().await.context("connecting")
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = self.clients.run(TcpSocket::new_v4)?;
        socket.set_nodelay(true)?;
        self.opened.set(self.opened.get() + 1);
        socket.connect(self.target).await
    }

    /// The application's next connection.
    pub(crate) async fn accept(&self) -> anyhow::Result<TcpStream> {
        let (stream, _) = self.application.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A client's new connection, and the application's end of it.
    pub(crate) async fn pair(&self) -> anyhow::Result<(TcpStream, TcpStream)> {
        self.attempt().await?.context("the client is cut off and the application hears nothing")
    }

    /// As `pair`, where the way may be closed: then the client is cut off or sees an end, and this
    /// gives none.
    pub(crate) async fn attempt(&self) -> anyhow::Result<Option<(TcpStream, TcpStream)>> {
        let mut client = match self.connect().await {
            Ok(client) => client,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error).context("connecting"),
        };
        tokio::select! {
            served = self.accept() => Ok(Some((client, served?))),
            over = over(&mut client) => over.map(|()| None),
        }
    }
}

/// The other side is gone, in one way or the other.
pub(crate) async fn over(from: &mut TcpStream) -> anyhow::Result<()> {
    match from.read(&mut [0; 64]).await {
        Ok(0) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        other => anyhow::bail!("not over but {other:?}"),
    }
}
