//! Every socket that the proxy opens on behalf of a pod: in the pod's namespace, marked, tuned.
//!
//! Invariants: a socket that could not get its mark is never used, since its packets would be
//! captured again; only the creation of a socket happens inside the namespace (a socket keeps the
//! namespace it was made in), so no other task ever sees the thread there.
//! Source: Istio ztunnel ARCHITECTURE, in-pod redirection; spec L4 §1.6, §3.7, §4.5.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::redirect::netns::Namespace;

/// Connections that may wait to be accepted. Upstream ztunnel has 128, which a burst of
/// short connections overflows; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// How the proxy's sockets in a pod behave. Defaults are Istio ztunnel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// Probes of idle connections, since an application's own end at the proxy; `None`: none.
    pub keepalive: Option<Keepalive>,
    /// How long sent bytes may stay unacknowledged before the connection is given up; `None`: as
    /// long as the kernel retransmits, about 15 min.
    pub user_timeout: Option<Duration>,
    /// Listen on IPv6 too, where the pod has it; default true. Without, IPv6 connections of the pod
    /// are refused, since they are captured all the same.
    pub ipv6: bool,
    /// Whether the application sees its client's address; default as far as permitted.
    pub keep_source: KeepSource,
}

/// Probes that find out whether an idle peer still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Keepalive {
    /// Idle time before the first probe; default 180 s.
    pub time: Duration,
    /// Between probes; default 180 s.
    pub interval: Duration,
    /// Unanswered probes that end the connection; default 9.
    pub retries: u32,
}

/// Whether the application sees its client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum KeepSource {
    /// Where the process may do that.
    IfPermitted,
    /// Pods where it may not are not served.
    Required,
    /// It sees the pod's own address.
    Never,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keepalive: Some(Keepalive::default()),
            user_timeout: None,
            ipv6: true,
            keep_source: KeepSource::IfPermitted,
        }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        let time = Duration::from_secs(180);
        Self { time, interval: time, retries: 9 }
    }
}

/// Opens sockets as one pod. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sockets {
    namespace: Option<Arc<Namespace>>,
    mark: Option<u32>,
    options: Options,
}

impl Sockets {
    /// Sockets inside `namespace`, all with `mark`.
    pub fn inside(namespace: Arc<Namespace>, mark: u32) -> Self {
        Self { namespace: Some(namespace), mark: Some(mark), options: Options::default() }
    }

    /// Sockets of the namespace that the process runs in: dedicated mode and tests.
    pub fn here(mark: Option<u32>) -> Self {
        Self { namespace: None, mark, options: Options::default() }
    }

    /// The same, with other options.
    #[must_use]
    pub fn with(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// The pod's namespace, unless sockets open in the process's own.
    pub fn namespace(&self) -> Option<&Arc<Namespace>> {
        self.namespace.as_ref()
    }

    /// Shows that sockets can be marked here.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_ADMIN` over the namespace.
    pub fn probe(&self) -> io::Result<()> {
        self.open(Domain::IPV4).map(drop)
    }

    /// Listens on `port` at every address, both families where the namespace has IPv6.
    /// Port 0 picks one. A second process may listen beside the first (`SO_REUSEPORT`).
    ///
    /// # Errors
    /// What the kernel says; `AddrInUse` when another program of the pod has the port.
    pub fn listen(&self, port: u16) -> io::Result<std::net::TcpListener> {
        self.listen_with(port, |socket| self.tune(socket))
    }

    /// As [`listen`](Self::listen), for a protocol that finds out about dead peers by pings of its own
    /// (spec L4 §1.6: no keepalive on tunnels).
    ///
    /// # Errors
    /// As there.
    pub fn listen_for_tunnels(&self, port: u16) -> io::Result<std::net::TcpListener> {
        self.listen_with(port, |socket| socket.set_tcp_nodelay(true))
    }

    fn listen_with(
        &self,
        port: u16,
        tune: impl Fn(&Socket) -> io::Result<()>,
    ) -> io::Result<std::net::TcpListener> {
        let on = |ip| self.listen_at(SocketAddr::new(ip, port), &tune);
        if !self.options.ipv6 {
            return on(Ipv4Addr::UNSPECIFIED.into());
        }
        match on(Ipv6Addr::UNSPECIFIED.into()) {
            Err(error) if lacks_ipv6(&error) => on(Ipv4Addr::UNSPECIFIED.into()),
            result => result,
        }
    }

    fn listen_at(
        &self,
        address: SocketAddr,
        tune: impl Fn(&Socket) -> io::Result<()>,
    ) -> io::Result<std::net::TcpListener> {
        let socket = self.open(Domain::for_address(address))?;
        // tcp(7): what a listener has, its connections have from the start.
        tune(&socket)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        // The permission to keep a foreign address (Istio ztunnel: also on an IPv6 socket).
        match (self.options.keep_source, || socket.set_ip_transparent_v4(true)) {
            (KeepSource::Never, _) => {}
            (KeepSource::Required, set) => set()?,
            (KeepSource::IfPermitted, set) => {
                if let Err(error) = set() {
                    tracing::debug!(%error, "listener is not transparent");
                }
            }
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }

    /// Connects to `to`, as `from` where given: the application then sees the client's address.
    /// Without permission to do so the pod's own address is used, with a warning.
    ///
    /// # Errors
    /// What the kernel says. The caller limits the time (10 s).
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
        let to = canonical(to);
        // A hairpin: the application must not see itself as its peer (spec L4 §4.5).
        let keep = self.options.keep_source != KeepSource::Never;
        let from = from.map(|ip| ip.to_canonical()).filter(|from| keep && *from != to.ip());
        let socket = self.open(Domain::for_address(to))?;
        self.tune(&socket)?;
        let socket = match from {
            None => socket,
            Some(from) => match take_address(&socket, from, to) {
                Ok(()) => socket,
                Err(error) => {
                    tracing::warn!(src = %from, dst = %to, %error, "cannot keep the client's address");
                    let plain = self.open(Domain::for_address(to))?;
                    self.tune(&plain)?;
                    plain
                }
            },
        };
        TcpSocket::from_std_stream(socket.into()).connect(to).await
    }

    /// A non-blocking stream socket in the pod's namespace, with the mark.
    fn open(&self, domain: Domain) -> io::Result<Socket> {
        let create =
            || Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP));
        let socket = match &self.namespace {
            Some(namespace) => namespace.run(create)??,
            None => create()?,
        };
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        Ok(socket)
    }

    /// No delay, and what finds out about dead peers.
    fn tune(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        if let Some(Keepalive { time, interval, retries }) = self.options.keepalive {
            let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval);
            socket.set_tcp_keepalive(&keepalive.with_retries(retries))?;
        }
        self.options.user_timeout.map_or(Ok(()), |time| socket.set_tcp_user_timeout(Some(time)))
    }
}

/// Where the client of a captured connection wanted to go; the socket's own address when the
/// connection was not captured. IPv4 in IPv6 form is returned as IPv4.
///
/// # Errors
/// When the socket has no local address any more.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let local = canonical(stream.local_addr()?);
    let socket = SockRef::from(stream);
    let original =
        if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    // No entry in the connection table: nothing rewrote this connection.
    Ok(original.ok().and_then(|address| address.as_socket()).map_or(local, canonical))
}

/// `[::ffff:a.b.c.d]:port` as `a.b.c.d:port`; everything else unchanged.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_canonical() {
            IpAddr::V4(v4) => SocketAddr::from((v4, v6.port())),
            IpAddr::V6(_) => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// Binds to an address that is not this machine's; the capture rules bring the replies back.
fn take_address(socket: &Socket, from: IpAddr, to: SocketAddr) -> io::Result<()> {
    match (from, to) {
        (IpAddr::V4(_), SocketAddr::V4(_)) => {
            socket.set_ip_transparent_v4(true)?;
            socket.set_freebind_v4(true)?;
        }
        (IpAddr::V6(_), SocketAddr::V6(_)) => {
            socket.set_ip_transparent_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
        _ => return Err(io::ErrorKind::AddrNotAvailable.into()),
    }
    // The port is chosen at connect, unique per four-tuple; chosen now it would be unique per
    // client address, which ends after 28,000 connections.
    nix::sys::socket::setsockopt(
        &socket.as_fd(),
        nix::sys::socket::sockopt::IpBindAddressNoPort,
        &true,
    )?;
    socket.bind(&SocketAddr::from((from, 0)).into())
}

fn lacks_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_families_reach_a_listener_and_an_uncaptured_connection_names_itself() {
        let sockets = Sockets::here(None);
        let listener = sockets.listen(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let to = SocketAddr::from((ip, port));
            let client = sockets.connect(to, None).await.unwrap();
            let (server, peer) = listener.accept().await.unwrap();
            assert_eq!(canonical(peer), client.local_addr().unwrap());
            assert_eq!(original_destination(&server).unwrap(), to);
            assert!(client.nodelay().unwrap());
        }
    }

    #[tokio::test]
    async fn tunnels_have_no_delay_and_no_probes() {
        let sockets = Sockets::here(None);
        let listener = sockets.listen_for_tunnels(0).unwrap();
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let _client = sockets.connect(to, None).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&server);
        assert!(socket.tcp_nodelay().unwrap() && !socket.keepalive().unwrap());
    }

    #[tokio::test]
    async fn a_second_listener_may_stand_beside_the_first() {
        let sockets = Sockets::here(None);
        let first = sockets.listen(0).unwrap();
        let port = first.local_addr().unwrap().port();
        assert!(sockets.listen(port).is_ok());
    }

    #[tokio::test]
    async fn options_decide_over_families_and_probes() {
        let keepalive = Keepalive {
            time: Duration::from_secs(7),
            interval: Duration::from_secs(5),
            retries: 3,
        };
        let user_timeout = Some(Duration::from_secs(22));
        let probing = Options { keepalive: Some(keepalive), user_timeout, ..Options::default() };
        let silent = Options { keepalive: None, ipv6: false, ..Options::default() };
        for options in [probing, silent] {
            let sockets = Sockets::here(None).with(options);
            let listener = sockets.listen(0).unwrap();
            assert_eq!(listener.local_addr().unwrap().is_ipv6(), options.ipv6);
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let client = sockets.connect(to, None).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            for stream in [&client, &server] {
                let socket = SockRef::from(stream);
                assert!(socket.tcp_nodelay().unwrap());
                assert_eq!(socket.keepalive().unwrap(), options.keepalive.is_some());
                assert_eq!(socket.tcp_user_timeout().unwrap(), options.user_timeout);
                if let Some(Keepalive { time, interval, retries }) = options.keepalive {
                    assert_eq!(socket.tcp_keepalive_time().unwrap(), time);
                    assert_eq!(socket.tcp_keepalive_interval().unwrap(), interval);
                    assert_eq!(socket.tcp_keepalive_retries().unwrap(), retries);
                }
            }
        }
    }

    #[test]
    fn mapped_addresses_become_plain_ones() {
        assert_eq!(canonical("[::ffff:1.2.3.4]:5".parse().unwrap()), "1.2.3.4:5".parse().unwrap());
        assert_eq!(canonical("[::1]:5".parse().unwrap()), "[::1]:5".parse().unwrap());
    }
}
