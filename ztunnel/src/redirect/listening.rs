//! Who listens on a port: asked of the kernel's socket diagnosis.

use std::io;

use crate::redirect::netlink::{Family, Message, Netlink};

const BY_FAMILY: u16 = 20;
const TCP: u8 = 6;
/// `1 << TCP_LISTEN`.
const LISTENING: u32 = 1 << 10;
/// `struct inet_diag_sockid`, all zero: any.
const SOCKET_ID_BYTES: usize = 48;

/// Sockets of both families that listen on `port`.
///
/// # Errors
/// What the kernel says; `NotFound` without `tcp_diag`.
pub(super) fn count(diagnosis: &mut Netlink, port: u16) -> io::Result<usize> {
    const IPV4: u8 = 2;
    const IPV6: u8 = 10;
    let mut total = 0;
    for family in [IPV4, IPV6] {
        let mut header = vec![family, TCP, 0, 0];
        header.extend(LISTENING.to_ne_bytes());
        header.extend([0; SOCKET_ID_BYTES]);
        let all = Message { kind: BY_FAMILY, flags: 0, header, attributes: Vec::new() };
        // Four bytes of state, then the local port in network order.
        let ports = diagnosis.dump(all)?;
        total += ports.iter().filter(|entry| entry.get(4..6) == Some(&port.to_be_bytes())).count();
    }
    Ok(total)
}

/// A connection to the diagnosis of the calling thread's namespace.
pub(super) fn open() -> io::Result<Netlink> {
    Netlink::open(Family::SocketDiagnosis)
}
