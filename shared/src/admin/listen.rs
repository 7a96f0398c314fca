//! Listening so that a second process can start beside the first.
//!
//! Invariants: a port is shared by SO_REUSEPORT (same user only); the unix socket is made under a
//! name of its own with mode 0600 and then renamed into place, and never removed: the process that
//! goes would remove the socket of the one that came.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::Mode;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

const BACKLOG: i32 = 128;

/// A listening socket of one of the servers.
#[derive(Debug)]
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

/// Something accepted.
pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => Ok(Accepted::Tcp(listener.accept().await?.0)),
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }

    /// The address of a port; `None` for a unix socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

/// Listens on a port. `[::]` means both families, or IPv4 alone on a machine without IPv6.
/// Needs a tokio runtime.
///
/// # Errors
/// What the system says; `AddrInUse` when a program that does not share holds the port.
pub fn tcp(addr: SocketAddr) -> io::Result<Listener> {
    let unspecified_v6 = addr.is_ipv6() && addr.ip().is_unspecified();
    let std = match bind_tcp(addr) {
        Err(error) if unspecified_v6 && no_ipv6(&error) => {
            bind_tcp((Ipv4Addr::UNSPECIFIED, addr.port()).into())?
        }
        bound => bound?,
    };
    Ok(Listener::Tcp(TcpListener::from_std(std)?))
}

fn bind_tcp(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn no_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(code, Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL))
}

/// Listens on a unix socket at `path`, in the place of one that may be there. Needs a tokio runtime.
///
/// # Errors
/// What the system says, most often about the directory.
pub fn unix(path: &Path) -> io::Result<Listener> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let mut own = path.as_os_str().to_owned();
    own.push(format!(".{}.{number}", std::process::id()));
    let own = PathBuf::from(own);
    let bound = bind_unix(&own).and_then(|listener| {
        std::fs::rename(&own, path)?;
        Ok(listener)
    });
    if bound.is_err() {
        std::fs::remove_file(&own).ok();
    }
    Ok(Listener::Unix(UnixListener::from_std(bound?)?))
}

fn bind_unix(path: &Path) -> io::Result<StdUnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file takes its mode from the socket, so there is no moment at which others may connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
