//! A client and a server in the mesh, and somebody outside; a connection between the two that must
//! outlive whatever else happens.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::eventually::becomes;
use harness::pod::{Pod, PodSpec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::timeout;
use ztunnel::outcome::Outcome;

use super::log::SOON;
use super::world::{Proxy, World, connect, listen};

/// The server's application answers with what it hears.
const ECHO: u16 = 7;

/// See the module. Fields are dropped from above: connections before the proxy that carries them.
pub(crate) struct Scene {
    witness: TcpStream,
    pub(crate) proxy: Proxy,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
    pub(crate) outsider: Pod,
    pub(crate) world: World,
}

impl Scene {
    pub(crate) async fn start(world: World) -> anyhow::Result<Self> {
        let server = world.pod(PodSpec::new("server"))?;
        Self::with_server(world, server, &[]).await
    }

    /// With another server than the usual one, and with variables of the proxy.
    pub(crate) async fn with_server(
        world: World,
        server: Pod,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let client = world.pod(PodSpec::new("client"))?;
        let outsider = world.far_pod(PodSpec::new("outsider").outside())?;
        let proxy = world.start(variables)?;
        proxy.ready()?;
        echo(listen(&server, ECHO)?);
        let witness = connect(&client, SocketAddr::new(server.ip(), ECHO)).await?;
        let mut scene = Self { witness, proxy, client, server, outsider, world };
        scene.is_unharmed().await.context("before anything has happened")?;
        Ok(scene)
    }

    /// The server's application.
    pub(crate) fn echo(&self) -> SocketAddr {
        SocketAddr::new(self.server.ip(), ECHO)
    }

    /// The old connection lives, new ones are made, and the proxy says that it is ready.
    pub(crate) async fn is_unharmed(&mut self) -> anyhow::Result<()> {
        exchange(&mut self.witness).await.context("the connection from before")?;
        let mut fresh = connect(&self.client, self.echo()).await?;
        exchange(&mut fresh).await.context("a new connection")?;
        self.proxy.is_ready()
    }

    /// A connection of the client to `to` comes to nothing, for this reason.
    pub(crate) async fn fails(
        &mut self,
        to: SocketAddr,
        outcome: Outcome,
        message: &str,
    ) -> anyhow::Result<String> {
        let client = &self.client;
        let log = &self.world.log;
        let cause = format!("cause=\"{}\"", outcome.code());
        // Whatever was written into the mesh directory last may not be in force yet.
        becomes(SOON, &format!("{cause} of a connection to {to}"), async || {
            broken(client, to).await?;
            let text = log.text();
            anyhow::ensure!(text.contains(&cause), "{text}");
            Ok::<_, anyhow::Error>(())
        })
        .await?;
        let line = log.tells(outcome, message).await?;
        self.is_unharmed().await?;
        Ok(line)
    }
}

/// A connection of `client` to `to`, which the proxy accepts and then has to give up.
pub(crate) async fn broken(client: &Pod, to: SocketAddr) -> anyhow::Result<()> {
    let mut stream = match connect(client, to).await {
        Ok(stream) => stream,
        // Accepted, and given up before we looked.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match timeout(SOON, stream.read(&mut [0])).await.context("neither bytes nor an end")? {
        Ok(0) | Err(_) => Ok(()),
        Ok(_) => anyhow::bail!("{to} answers"),
    }
}

/// Bytes go there and come back.
pub(crate) async fn exchange(stream: &mut TcpStream) -> anyhow::Result<()> {
    let word = *b"are you there?";
    let mut answer = [0; 14];
    let both = async {
        stream.write_all(&word).await?;
        stream.read_exact(&mut answer).await
    };
    timeout(Duration::from_secs(20), both).await.context("no answer")??;
    ensure!(answer == word);
    Ok(())
}

/// Serves every connection of `listener` with its own bytes.
pub(crate) fn echo(listener: TcpListener) {
    spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            spawn_local(async move {
                let (mut read, mut write) = stream.split();
                // The other side may hang up; tests look at its end.
                let _ = tokio::io::copy(&mut read, &mut write).await;
                write.shutdown().await
            });
        }
    });
}

/// A listener of `pod` whose queue is full, so that nobody gets an answer to a SYN. Keep it all.
pub(crate) async fn deaf(
    pod: &Pod,
    port: u16,
) -> anyhow::Result<(std::net::TcpListener, Vec<TcpStream>)> {
    let listener = pod.netns().run(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)).into())?;
        socket.listen(0)?;
        Ok::<std::net::TcpListener, io::Error>(socket.into())
    })?;
    let mut waiting = Vec::new();
    let own = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port));
    for _ in 0..8 {
        match timeout(Duration::from_millis(300), connect(pod, own)).await {
            Ok(stream) => waiting.push(stream?),
            Err(_) => return Ok((listener, waiting)),
        }
    }
    anyhow::bail!("the queue of port {port} takes everybody")
}
