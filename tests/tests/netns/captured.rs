//! A pod beside its node: two namespaces and a cable, with the proxy's sockets and rules.
//!
//! ```text
//!  node 10.0.0.1, fd00::1, 169.254.7.127 ══ eth0 ══ pod 10.0.0.2, fd00::2
//! ```

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use harness::eventually::eventually;
use harness::netlink::Link;
use harness::netns::NetNs;
use tokio::runtime::Runtime;
use ztunnel::redirect::{Home, Namespace, PROXY_MARK, Ports, Sockets, sockets};

/// Where the world outside is.
pub(crate) const NODE: [&str; 2] = ["10.0.0.1", "fd00::1"];
/// Where the pod is.
pub(crate) const POD: [&str; 2] = ["10.0.0.2", "fd00::2"];

const LONG: Duration = Duration::from_secs(5);
/// A first packet may be lost while a cable comes up; it is sent again after a second.
const SHORT: Duration = Duration::from_secs(3);

/// A pod's namespace with the way to its node.
pub(crate) struct Captured {
    pub(crate) node: NetNs,
    pub(crate) pod: NetNs,
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) sockets: Sockets,
    runtime: Runtime,
}

/// The proxy's listeners.
pub(crate) struct Listeners {
    pub(crate) outbound: TcpListener,
    pub(crate) inbound: TcpListener,
    pub(crate) tunnel: TcpListener,
}

impl Captured {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (node, pod) = (NetNs::new()?, NetNs::new()?);
        node.run(|| {
            let link = Link::open()?;
            link.add_veth("pod", "eth0", pod.as_fd())?;
            for (address, prefix) in [(NODE[0], 24), (NODE[1], 64), ("169.254.7.127", 32)] {
                link.add_address("pod", ip(address), prefix)?;
            }
            link.up("pod")
        })?;
        // The strictest way of looking at sources: the way back must work with it too.
        pod.set("ipv4/conf/all/rp_filter", "1")?;
        pod.run(|| {
            let link = Link::open()?;
            link.add_address("eth0", ip(POD[0]), 24)?;
            link.add_address("eth0", ip(POD[1]), 64)?;
            link.up("eth0")?;
            link.add_route((ip("0.0.0.0"), 0), Some(ip(NODE[0])), "eth0")?;
            link.add_route((ip("::"), 0), Some(ip(NODE[1])), "eth0")
        })?;
        let namespace = Arc::new(Namespace::open(&pod.path(), &Home::current()?)?);
        let sockets = Sockets::inside(Arc::clone(&namespace), PROXY_MARK);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { node, pod, namespace, sockets, runtime })
    }

    pub(crate) fn listen(&self) -> io::Result<Listeners> {
        let Ports { outbound, inbound, tunnel } = Ports::default();
        Ok(Listeners {
            outbound: self.sockets.listen(outbound)?,
            inbound: self.sockets.listen(inbound)?,
            tunnel: self.sockets.listen(tunnel)?,
        })
    }

    /// A server of the application, or of the world.
    pub(crate) fn serve(&self, place: &NetNs, address: &str) -> io::Result<TcpListener> {
        place.run(|| {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
    }

    /// A connection as any program of `place` makes it.
    pub(crate) fn connect(&self, place: &NetNs, to: &str) -> io::Result<TcpStream> {
        let to = address(to);
        place.run(|| TcpStream::connect_timeout(&to, SHORT))
    }

    /// A connection that the proxy makes for the pod.
    pub(crate) fn dial(&self, to: &str, from: Option<&str>) -> anyhow::Result<TcpStream> {
        let connect = self.sockets.connect(address(to), from.map(ip));
        let stream =
            self.runtime.block_on(async { tokio::time::timeout(SHORT, connect).await })??;
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    }

    /// The next connection that `listener` gets: the stream, and who is on the other side.
    pub(crate) fn accept(&self, listener: &TcpListener) -> anyhow::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = eventually(LONG, "a connection", || listener.accept())?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(LONG))?;
        Ok((stream, sockets::canonical(peer)))
    }

    /// Where the next connection of `listener` wanted to go.
    pub(crate) fn destination(&self, listener: &TcpListener) -> anyhow::Result<SocketAddr> {
        let (stream, _) = self.accept(listener)?;
        stream.set_nonblocking(true)?;
        let _inside = self.runtime.enter();
        let stream = tokio::net::TcpStream::from_std(stream)?;
        Ok(sockets::original_destination(&stream)?)
    }
}

/// Nothing has reached `listener`; asked after the connection in question was made elsewhere.
pub(crate) fn nothing_came(listener: &TcpListener) -> anyhow::Result<()> {
    match listener.accept() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        other => anyhow::bail!("expected no connection, found {other:?}"),
    }
}

/// Bytes go both ways.
pub(crate) fn talk(client: &mut TcpStream, server: &mut TcpStream) -> anyhow::Result<()> {
    client.set_read_timeout(Some(LONG))?;
    let mut word = [0; 4];
    client.write_all(b"ping")?;
    server.read_exact(&mut word).context("to the server")?;
    anyhow::ensure!(&word == b"ping");
    server.write_all(b"pong")?;
    client.read_exact(&mut word).context("to the client")?;
    anyhow::ensure!(&word == b"pong");
    Ok(())
}

/// `[v6]:port` or `v4:port`.
pub(crate) fn at(host: &str, port: u16) -> String {
    SocketAddr::new(ip(host), port).to_string()
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("tests write legal addresses")
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("tests write legal addresses")
}
