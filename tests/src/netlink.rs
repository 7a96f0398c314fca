//! A small route-netlink client: links, addresses and routes, nothing more. Needs no `ip` program.
//! Acts on the network namespace in which `Link::open` was called.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Message kinds and attributes of rtnetlink(7), veth and bridge.
mod number {
    pub(super) const ERROR: u16 = 2;
    pub(super) const NEW_LINK: u16 = 16;
    pub(super) const DEL_LINK: u16 = 17;
    pub(super) const SET_LINK: u16 = 19;
    pub(super) const NEW_ADDRESS: u16 = 20;
    pub(super) const NEW_ROUTE: u16 = 24;
    pub(super) const REQUEST_ACK: u16 = 0x1 | 0x4;
    pub(super) const CREATE: u16 = 0x400 | 0x200;
    pub(super) const LINK_NAME: u16 = 3;
    pub(super) const LINK_MTU: u16 = 4;
    pub(super) const LINK_MASTER: u16 = 10;
    pub(super) const LINK_INFO: u16 = 18;
    pub(super) const LINK_NAMESPACE: u16 = 28;
    pub(super) const INFO_KIND: u16 = 1;
    pub(super) const INFO_DETAIL: u16 = 2;
    pub(super) const VETH_PEER: u16 = 1;
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const LOCAL: u16 = 2;
    pub(super) const ROUTE_TO: u16 = 1;
    pub(super) const ROUTE_VIA: u16 = 5;
    pub(super) const ROUTE_DEVICE: u16 = 4;
    pub(super) const NO_DAD: u8 = 0x02;
    pub(super) const UP: u32 = 1;
}

/// One netlink message while it is written: header, fixed part, attributes.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(number::REQUEST_ACK | flags).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("attributes here are short");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn nest(mut self, kind: u16, inside: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self = inside(self.attribute(kind, &[]));
        let length = u16::try_from(self.0.len() - start).expect("attributes here are short");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn address(self, kind: u16, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    family.as_raw() as u8
}

/// The links of the current network namespace.
pub struct Link {
    socket: OwnedFd,
}

impl Link {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self { socket })
    }

    /// Sends one message and waits for its acknowledgement.
    fn ask(&self, message: Message) -> io::Result<()> {
        let bytes = message.finish();
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(self.socket.as_fd(), &bytes, SendFlags::empty(), &kernel)?;
        let mut answer = [0; 8192];
        let (read, _) =
            rustix::net::recv(self.socket.as_fd(), &mut answer[..], RecvFlags::empty())?;
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        if read < 20 || kind != number::ERROR {
            return Err(io::Error::other("netlink answered with something else"));
        }
        match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(-error)),
        }
    }

    /// The index of interface `link`.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn index(&self, link: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(self.socket.as_fd(), link)?)
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn up(&self, link: &str) -> io::Result<()> {
        let header = link_header(self.index(link)?, number::UP);
        self.ask(Message::new(number::SET_LINK, 0, &header))
    }

    /// Takes an interface away, with its other end.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn remove(&self, link: &str) -> io::Result<()> {
        let header = link_header(self.index(link)?, 0);
        self.ask(Message::new(number::DEL_LINK, 0, &header))
    }

    /// Makes an Ethernet bridge.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn add_bridge(&self, bridge: &str) -> io::Result<()> {
        let message = Message::new(number::NEW_LINK, number::CREATE, &link_header(0, 0))
            .attribute(number::LINK_NAME, &name(bridge))
            .nest(number::LINK_INFO, |info| info.attribute(number::INFO_KIND, b"bridge"));
        self.ask(message)
    }

    /// Makes a pair of interfaces: `link` here, `peer` in the namespace `other`.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn add_veth(&self, link: &str, peer: &str, other: BorrowedFd<'_>) -> io::Result<()> {
        let mtu = 1500_u32.to_ne_bytes();
        let message = Message::new(number::NEW_LINK, number::CREATE, &link_header(0, 0))
            .attribute(number::LINK_NAME, &name(link))
            .attribute(number::LINK_MTU, &mtu)
            .nest(number::LINK_INFO, |info| {
                info.attribute(number::INFO_KIND, b"veth").nest(number::INFO_DETAIL, |detail| {
                    detail.nest(number::VETH_PEER, |mut end| {
                        end.0.extend_from_slice(&link_header(0, 0));
                        end.attribute(number::LINK_NAME, &name(peer))
                            .attribute(number::LINK_MTU, &mtu)
                            .attribute(number::LINK_NAMESPACE, &other.as_raw_fd().to_ne_bytes())
                    })
                })
            });
        self.ask(message)
    }

    /// Plugs `link` into `bridge`.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn set_master(&self, link: &str, bridge: &str) -> io::Result<()> {
        let header = link_header(self.index(link)?, 0);
        let master = self.index(bridge)?.to_ne_bytes();
        let message = Message::new(number::SET_LINK, 0, &header);
        self.ask(message.attribute(number::LINK_MASTER, &master))
    }

    /// Gives `link` an address; an IPv6 one is usable at once.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn add_address(&self, link: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
        // struct ifaddrmsg
        let mut header = vec![family(address), prefix, number::NO_DAD, 0];
        header.extend_from_slice(&self.index(link)?.to_ne_bytes());
        let message = Message::new(number::NEW_ADDRESS, number::CREATE, &header)
            .address(number::LOCAL, address)
            .address(number::ADDRESS, address);
        self.ask(message)
    }

    /// Sends what goes to `to` (an address and its prefix) over `link`, by way of `via` if given.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn add_route(&self, to: (IpAddr, u8), via: Option<IpAddr>, link: &str) -> io::Result<()> {
        const MAIN_TABLE: u8 = 254;
        const BOOT: u8 = 3;
        const UNICAST: u8 = 1;
        let scope = if via.is_some() { 0 } else { 253 };
        // struct rtmsg
        let header = [family(to.0), to.1, 0, 0, MAIN_TABLE, BOOT, scope, UNICAST, 0, 0, 0, 0];
        let mut message = Message::new(number::NEW_ROUTE, number::CREATE, &header)
            .attribute(number::ROUTE_DEVICE, &self.index(link)?.to_ne_bytes());
        if to.1 > 0 {
            message = message.address(number::ROUTE_TO, to.0);
        }
        if let Some(via) = via {
            message = message.address(number::ROUTE_VIA, via);
        }
        self.ask(message)
    }
}
