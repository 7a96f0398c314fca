//! The capture rules of a pod: what is redirected, what is left alone, and the way back.
//!
//! Invariants: rules stay when the process ends, however it ends (fails closed: traffic then meets
//! a port where nobody listens); only [`remove`] takes them away; applying again changes nothing
//! when the kernel already has them, and otherwise swaps old for new without a gap.
//! Source: istio-cni `cni/pkg/iptables` and `cni/pkg/nftables` in-pod rules; spec L4 §9.1–9.3.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::redirect::listening;
use crate::redirect::netlink::Netlink;
use crate::redirect::netns::{self, Home, Namespace};
use crate::redirect::nft::{self, Base, Chain, Expressions, Hook, Is, Mark, Side, Table, Verdict};
use crate::redirect::{MARK_MASK, PROXY_MARK, RETURN_MARK, route};

const NAT: &str = "istio-ambient-nat";
const MANGLE: &str = "istio-ambient-mangle";
const RAW: &str = "istio-ambient-raw";
const PREROUTING: &str = "istio-prerouting";
const OUTPUT: &str = "istio-output";

/// Destination NAT happens here (`NF_IP_PRI_NAT_DST`).
const NAT_PRIORITY: i32 = -100;
const MANGLE_PRIORITY: i32 = -150;

/// The address that a kubelet's probes come from (istio-cni `HOST_PROBE_SNAT_IP` and `_IPV6`).
const PROBES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 7, 127)),
    IpAddr::V6(Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff)),
];
/// Only the exact addresses are left alone, not all of 127/8.
const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Longest interface name that the kernel has.
const INTERFACE_NAME_BYTES: usize = 15;

/// Why capture is not in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace could not be entered.
    #[error("cannot enter the pod's network namespace")]
    Enter(#[source] io::Error),
    /// The kernel refused the tables.
    #[error("cannot program nftables (needs CAP_NET_ADMIN and the nf_tables modules)")]
    Tables(#[source] io::Error),
    /// The kernel refused rule or route for the way back.
    #[error("cannot program policy routing")]
    Routing(#[source] io::Error),
    /// The kernel has other rules than those that it accepted.
    #[error("chain {0} does not read back as written")]
    Different(String),
    /// A name in the annotation is no interface name.
    #[error("{0:?} is not an interface name")]
    Interface(String),
}

/// The ports that captured traffic is sent to, and the one where peers come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ports {
    /// What applications open: 15001.
    pub outbound: u16,
    /// What reaches the pod outside a tunnel: 15006.
    pub inbound: u16,
    /// Tunnels, addressed directly by peers and never captured: 15008.
    pub tunnel: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { outbound: 15001, inbound: 15006, tunnel: 15008 }
    }
}

/// How one pod is captured.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// Where captured traffic goes.
    pub ports: Ports,
    /// Leaves inbound plaintext alone (annotation `ambient.istio.io/bypass-inbound-capture`).
    pub bypass_inbound: bool,
    /// Interfaces whose traffic is another machine's outbound: nested containers and virtual
    /// machines (annotation `istio.io/reroute-virtual-interfaces`).
    pub reroute_interfaces: Vec<String>,
}

/// What [`Capture::apply`] found to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The kernel already had exactly these rules.
    Unchanged,
    /// Rules were written, over older ones or for the first time.
    Written,
}

impl Capture {
    /// Puts the rules in force in `namespace` and reads them back. Listeners come first: from
    /// here on the pod's connections go to them. Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`Error`]; the rules from before are then still in force.
    pub fn apply(&self, namespace: &Namespace) -> Result<Applied, Error> {
        for name in &self.reroute_interfaces {
            check_interface(name)?;
        }
        let Inside { mut filter, mut routing, ipv6 } = Inside::open(namespace)?;
        route::add(&mut routing, ipv6).map_err(Error::Routing)?;
        let tables = self.tables();
        if difference(&mut filter, &tables)?.is_none() {
            return Ok(Applied::Unchanged);
        }
        nft::replace(&mut filter, &tables).map_err(Error::Tables)?;
        match difference(&mut filter, &tables)? {
            None => Ok(Applied::Written),
            Some(chain) => Err(Error::Different(chain)),
        }
    }

    /// Looks whether the kernel has exactly these rules.
    ///
    /// # Errors
    /// [`Error::Different`] names the first chain that is not as written.
    pub fn verify(&self, namespace: &Namespace) -> Result<(), Error> {
        let mut filter = Inside::open(namespace)?.filter;
        difference(&mut filter, &self.tables())?
            .map_or(Ok(()), |chain| Err(Error::Different(chain)))
    }

    fn tables(&self) -> [Table; 2] {
        let nat = Table {
            name: NAT,
            chains: vec![
                base("prerouting", "nat", Hook::Prerouting, NAT_PRIORITY, PREROUTING),
                base("output", "nat", Hook::Output, NAT_PRIORITY, OUTPUT),
                Chain { name: PREROUTING, base: None, rules: self.redirect_inbound() },
                Chain { name: OUTPUT, base: None, rules: self.redirect_outbound() },
            ],
        };
        // Type `route`: a restored mark makes the kernel look up the packet's way again.
        let mangle = Table {
            name: MANGLE,
            chains: vec![
                base("prerouting", "filter", Hook::Prerouting, MANGLE_PRIORITY, PREROUTING),
                base("output", "route", Hook::Output, MANGLE_PRIORITY, OUTPUT),
                Chain { name: PREROUTING, base: None, rules: vec![remember_proxy()] },
                Chain { name: OUTPUT, base: None, rules: vec![mark_answers()] },
            ],
        };
        [nat, mangle]
    }

    fn redirect_inbound(&self) -> Vec<Expressions> {
        let mut rules = Vec::new();
        for name in &self.reroute_interfaces {
            let from_interface = || Expressions::default().input_interface(name);
            rules.push(
                Expressions::tcp().input_interface(name).counter().redirect(self.ports.outbound),
            );
            rules.push(from_interface().counter().verdict(Verdict::Return));
        }
        if self.bypass_inbound {
            return rules;
        }
        for probe in PROBES {
            let from_probe = Expressions::tcp().address(Side::Source, Is::Equal, probe);
            rules.push(from_probe.counter().verdict(Verdict::Accept));
        }
        for loopback in LOOPBACKS {
            rules.push(
                Expressions::tcp()
                    .address(Side::Destination, Is::Different, loopback)
                    .destination_port(Is::Different, self.ports.tunnel)
                    .mark(Mark::Packet, MARK_MASK, Is::Different, PROXY_MARK)
                    .counter()
                    .redirect(self.ports.inbound),
            );
        }
        rules
    }

    fn redirect_outbound(&self) -> Vec<Expressions> {
        let mut rules = Vec::new();
        for probe in PROBES {
            let to_probe = Expressions::tcp().address(Side::Destination, Is::Equal, probe);
            rules.push(to_probe.counter().verdict(Verdict::Accept));
        }
        let answers = Expressions::tcp().mark(Mark::Packet, MARK_MASK, Is::Equal, RETURN_MARK);
        rules.push(answers.counter().verdict(Verdict::Accept));
        for loopback in LOOPBACKS {
            let to_itself = Expressions::default().output_interface("lo").address(
                Side::Destination,
                Is::Different,
                loopback,
            );
            rules.push(to_itself.counter().verdict(Verdict::Accept));
        }
        for loopback in LOOPBACKS {
            rules.push(
                Expressions::tcp()
                    .address(Side::Destination, Is::Different, loopback)
                    .mark(Mark::Packet, MARK_MASK, Is::Different, PROXY_MARK)
                    .counter()
                    .redirect(self.ports.outbound),
            );
        }
        rules
    }
}

/// Removes every trace of capture from `namespace`: tables, rules of policy routing, routes, and
/// what [`keep_accept_queues`] set. Doing it again does nothing.
///
/// # Errors
/// [`Error`]; what could be removed is gone.
pub fn remove(namespace: &Namespace) -> Result<(), Error> {
    // Where nothing was captured, the setting is somebody else's. What it was before is not known
    // after a restart; 0 is the kernel's default.
    if is_captured(namespace)?
        && let Err(error) = migrate_accept_queues(namespace, "0")
    {
        tracing::debug!(%error, "net.ipv4.tcp_migrate_req stays as it is");
    }
    let Inside { mut filter, mut routing, .. } = Inside::open(namespace)?;
    let tables = nft::remove(&mut filter, &[NAT, MANGLE, RAW]).map_err(Error::Tables);
    route::remove(&mut routing).map_err(Error::Routing)?;
    tables
}

/// Whether `namespace` has anything of capture, ours or istio-cni's: a table, a rule or route of
/// the way back.
///
/// # Errors
/// [`Error`] names what could not be looked at.
pub fn is_captured(namespace: &Namespace) -> Result<bool, Error> {
    let Inside { mut filter, mut routing, .. } = Inside::open(namespace)?;
    Ok(nft::any_exists(&mut filter, &[NAT, MANGLE]).map_err(Error::Tables)?
        || route::is_present(&mut routing).map_err(Error::Routing)?)
}

/// The addresses that `namespace` holds.
///
/// # Errors
/// [`Error::Enter`], [`Error::Routing`].
pub fn addresses(namespace: &Namespace) -> Result<Vec<IpAddr>, Error> {
    let mut routing = Inside::open(namespace)?.routing;
    route::addresses(&mut routing).map_err(Error::Routing)
}

/// Lets connections that wait to be accepted move to another listener of the same port when
/// theirs closes, so that a second process takes over without a reset.
///
/// # Errors
/// When `/proc/sys` is read only; the listeners then empty their queues before closing.
pub fn keep_accept_queues(namespace: &Namespace) -> io::Result<()> {
    migrate_accept_queues(namespace, "1")
}

fn migrate_accept_queues(namespace: &Namespace, value: &str) -> io::Result<()> {
    // `/proc/sys/net` shows the namespace of the thread that opens it.
    namespace.run(|| std::fs::write("/proc/sys/net/ipv4/tcp_migrate_req", value))?
}

/// Whether connections that wait to be accepted move to another listener.
pub fn moves_accept_queues(namespace: &Namespace) -> bool {
    let read = || std::fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req");
    matches!(namespace.run(read), Ok(Ok(value)) if value.trim() == "1")
}

/// How many sockets listen on `port` in `namespace`, of any process.
///
/// # Errors
/// When the kernel does not say (no `tcp_diag`).
pub fn listeners(namespace: &Namespace, port: u16) -> io::Result<usize> {
    let mut diagnosis = namespace.run(listening::open)??;
    listening::count(&mut diagnosis, port)
}

/// Removes all capture from the namespace that `path` names: what `ztunnel uncapture` does.
///
/// # Errors
/// [`Uncapture`].
pub fn uncapture(path: &Path) -> Result<(), Uncapture> {
    let home = Home::current().map_err(netns::Error::Open)?;
    let namespace = Namespace::open(path, &home)?;
    Ok(remove(&namespace)?)
}

/// Why capture could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum Uncapture {
    /// The path is refused.
    #[error(transparent)]
    Namespace(#[from] netns::Error),
    /// The kernel refused.
    #[error(transparent)]
    Capture(#[from] Error),
}

/// What is opened inside the namespace; it works from outside afterwards.
struct Inside {
    filter: Netlink,
    routing: Netlink,
    ipv6: bool,
}

impl Inside {
    fn open(namespace: &Namespace) -> Result<Self, Error> {
        let open = || {
            let disabled = std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6");
            let ipv6 = disabled.is_ok_and(|value| value.trim() != "1");
            Ok(Self { filter: nft::open()?, routing: route::open()?, ipv6 })
        };
        namespace.run(open).and_then(|opened| opened).map_err(Error::Enter)
    }
}

fn difference(filter: &mut Netlink, tables: &[Table]) -> Result<Option<String>, Error> {
    for table in tables {
        if let Some(chain) = nft::difference(filter, table).map_err(Error::Tables)? {
            return Ok(Some(chain));
        }
    }
    Ok(None)
}

fn base(
    name: &'static str,
    kind: &'static str,
    hook: Hook,
    priority: i32,
    calls: &'static str,
) -> Chain {
    let jump = Expressions::default().counter().verdict(Verdict::Jump(calls));
    Chain { name, base: Some(Base { kind, hook, priority }), rules: vec![jump] }
}

/// A connection that the proxy opened to the application is remembered by its connection.
fn remember_proxy() -> Expressions {
    Expressions::default()
        .mark(Mark::Packet, MARK_MASK, Is::Equal, PROXY_MARK)
        .counter()
        .set_connection_mark(MARK_MASK, RETURN_MARK)
}

/// The application's packets on such a connection take the way back to the proxy.
fn mark_answers() -> Expressions {
    Expressions::default()
        .mark(Mark::Connection, MARK_MASK, Is::Equal, RETURN_MARK)
        .counter()
        .restore_mark()
}

fn check_interface(name: &str) -> Result<(), Error> {
    let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if name.is_empty() || name.len() > INTERFACE_NAME_BYTES || !name.bytes().all(legal) {
        return Err(Error::Interface(name.to_owned()));
    }
    Ok(())
}
