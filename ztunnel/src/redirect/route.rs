//! The way back for connections that carry a client's address, and the addresses of a namespace.
//!
//! Packets with the return mark are looked up in a table of their own, where every address is
//! local; so the application's answer to a client reaches the proxy's socket instead of the link.
//! Source: istio-cni in-pod rules: mark 0x111/0xfff, preference 32764, table 100, both families.

use std::io;
use std::net::IpAddr;

use crate::redirect::netlink::{self, Attribute, Family, Message, Netlink};
use crate::redirect::{MARK_MASK, RETURN_MARK};

const TABLE: u8 = 100;
const PREFERENCE: u32 = 32764;
/// `lo` has index 1 in every namespace.
const LOOPBACK: u32 = 1;

const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// `struct rtmsg`, and `struct fib_rule_hdr` alike.
const RTMSG_BYTES: usize = 12;

const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ADDRESS: u16 = 22;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;

/// Adds rule and route for each family that the loopback interface has. Idempotent.
///
/// # Errors
/// What the kernel says; `NetworkDown` when `lo` is down.
pub(super) fn add(netlink: &mut Netlink, ipv6: bool) -> io::Result<()> {
    for family in families(ipv6) {
        for message in [route(NEW_ROUTE, family), rule(NEW_RULE, family)] {
            let flags = netlink::CREATE | netlink::EXCLUSIVE;
            match netlink.request(Message { flags, ..message }) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Removes what [`add`] added, however often it was added by others too.
///
/// # Errors
/// What the kernel says, except that there was nothing.
pub(super) fn remove(netlink: &mut Netlink) -> io::Result<()> {
    for family in families(true) {
        for message in [rule(DELETE_RULE, family), route(DELETE_ROUTE, family)] {
            while removed(netlink.request(message.clone()))? {}
        }
    }
    Ok(())
}

/// Whether rule or route of [`add`] is there, of either family.
///
/// # Errors
/// What the kernel says.
pub(super) fn is_present(netlink: &mut Netlink) -> io::Result<bool> {
    const GET_ROUTE: u16 = 26;
    const GET_RULE: u16 = 34;
    let all =
        |kind| Message { kind, flags: 0, header: vec![0; RTMSG_BYTES], attributes: Vec::new() };
    let ours = |entries: Vec<Vec<u8>>, wanted: &[Attribute]| {
        entries.iter().any(|entry| {
            let attributes = entry.get(RTMSG_BYTES..).unwrap_or_default();
            wanted.iter().all(|attribute| attribute.is_in(attributes))
        })
    };
    let table = || Attribute::native(15, TABLE.into());
    let rules = netlink.dump(all(GET_RULE))?;
    let routes = netlink.dump(all(GET_ROUTE))?;
    Ok(ours(rules, &[table(), Attribute::native(10, RETURN_MARK)])
        || ours(routes, &[table(), Attribute::native(4, LOOPBACK)]))
}

fn removed(result: io::Result<()>) -> io::Result<bool> {
    use rustix::io::Errno;
    let Err(error) = result else { return Ok(true) };
    let nothing = [Errno::NOENT, Errno::SRCH, Errno::NODEV, Errno::AFNOSUPPORT, Errno::OPNOTSUPP];
    if nothing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) {
        return Ok(false);
    }
    Err(error)
}

fn families(ipv6: bool) -> impl Iterator<Item = u8> {
    std::iter::once(IPV4).chain(ipv6.then_some(IPV6))
}

/// `local default dev lo table 100`.
fn route(kind: u16, family: u8) -> Message {
    const STATIC: u8 = 4;
    const SCOPE_HOST: u8 = 254;
    const LOCAL: u8 = 2;
    let mut header = vec![family, 0, 0, 0, TABLE, STATIC, SCOPE_HOST, LOCAL];
    header.extend([0; 4]);
    let attributes = vec![Attribute::native(4, LOOPBACK), Attribute::native(15, TABLE.into())];
    Message { kind, flags: 0, header, attributes }
}

/// `pref 32764 fwmark 0x111/0xfff lookup 100`.
fn rule(kind: u16, family: u8) -> Message {
    const TO_TABLE: u8 = 1;
    let mut header = vec![family, 0, 0, 0, TABLE, 0, 0, TO_TABLE];
    header.extend([0; 4]);
    let attributes = vec![
        Attribute::native(6, PREFERENCE),
        Attribute::native(10, RETURN_MARK),
        Attribute::native(16, MARK_MASK),
        Attribute::native(15, TABLE.into()),
    ];
    Message { kind, flags: 0, header, attributes }
}

/// Every address that an interface of the namespace has.
///
/// # Errors
/// What the kernel says.
pub(super) fn addresses(netlink: &mut Netlink) -> io::Result<Vec<IpAddr>> {
    const HEADER_BYTES: usize = 8;
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let all = Message {
        kind: GET_ADDRESS,
        flags: 0,
        header: vec![0; HEADER_BYTES],
        attributes: Vec::new(),
    };
    let address = |entry: &Vec<u8>| {
        let attributes = entry.get(HEADER_BYTES..)?;
        // On a point-to-point link the first is the other end's.
        let value =
            netlink::find(attributes, LOCAL).or_else(|| netlink::find(attributes, ADDRESS))?;
        <[u8; 4]>::try_from(value)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from))
            .ok()
    };
    Ok(netlink.dump(all)?.iter().filter_map(address).collect())
}

/// A connection to the routing of the calling thread's namespace.
pub(super) fn open() -> io::Result<Netlink> {
    Netlink::open(Family::Route)
}
