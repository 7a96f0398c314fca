//! The two system calls that have no safe wrapper, alone in one file.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::UnshareFlags;
use socket2::{SockAddr, Socket};

/// Every protocol, in network byte order.
const ETH_P_ALL: u16 = 0x0003_u16.to_be();

/// The kernel's `struct sockaddr_ll`.
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol: u16,
    interface: i32,
    hardware_type: u16,
    packet_type: u8,
    address_length: u8,
    address: [u8; 8],
}

/// Moves the calling thread into new namespaces. `flags` must not hold `FILES`.
#[expect(unsafe_code, reason = "the wrapper is unsafe only because of CLONE_FILES")]
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    assert!(!flags.contains(UnshareFlags::FILES), "descriptors stay shared between threads");
    // SAFETY: without CLONE_FILES no descriptor changes its meaning for another thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}

/// A packet socket that sees every frame which one interface receives or sends.
#[expect(unsafe_code, reason = "no wrapper can fill a sockaddr_ll")]
pub(crate) fn packet_socket(interface: u32) -> io::Result<Socket> {
    let fd: OwnedFd = rustix::net::socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let socket = Socket::from(fd);
    // SAFETY: the storage is larger than a LinkAddress and aligned for every socket address;
    // the address is written whole before its length is set.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<LinkAddress>().write(LinkAddress {
                family: AddressFamily::PACKET.as_raw(),
                protocol: ETH_P_ALL,
                interface: i32::try_from(interface).map_err(io::Error::other)?,
                hardware_type: 0,
                packet_type: 0,
                address_length: 0,
                address: [0; 8],
            });
            *length = size_of::<LinkAddress>() as u32;
            Ok(())
        })?
    };
    socket.bind(&address)?;
    Ok(socket)
}
