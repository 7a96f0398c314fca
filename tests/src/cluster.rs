//! A cluster on one machine. Nodes are network namespaces on one Ethernet ("the fabric"); pods are
//! namespaces behind their node, which routes for them. Both address families.
//!
//! ```text
//!  pod 10.1.0.2 ── node 1 (10.0.0.1) ──┐ fabric ┌── node 2 (10.0.0.2) ── pod 10.2.0.2
//!                                      └─ bridge ┘
//! ```
//! The same addresses in every cluster: clusters do not see each other.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use crate::enter::work;
use crate::mesh_dir::MeshDir;
use crate::netlink::Link;
use crate::netns::NetNs;
use crate::pod::{Pod, PodSpec};
use crate::process::{Place, Program};

/// Nodes per cluster; every node knows the way to that many.
const MAX_NODES: u8 = 8;

/// Nodes, pods and the directory that describes them.
#[derive(Debug)]
pub struct Cluster {
    fabric: NetNs,
    dir: PathBuf,
    mesh: MeshDir,
    nodes: Mutex<Vec<Arc<Node>>>,
}

impl Cluster {
    /// An empty cluster. `name` is unique within the process.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let dir = work().join(name);
        fs::create_dir(&dir).with_context(|| format!("there is a cluster {name} already"))?;
        fs::write(dir.join("hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
        let fabric = NetNs::new().context("making the fabric")?;
        fabric.run(|| {
            let link = Link::open()?;
            link.add_bridge("fabric")?;
            link.up("fabric")
        })?;
        let mesh = MeshDir::new(dir.join("mesh"))?;
        Ok(Self { fabric, dir, mesh, nodes: Mutex::new(Vec::new()) })
    }

    /// An empty cluster whose name begins with `name`, for cases that share how they begin.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn numbered(name: &str) -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self::new(&format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Adds a node.
    ///
    /// # Errors
    /// The kernel refuses, or there are too many.
    pub fn node(&self, name: &str) -> anyhow::Result<Arc<Node>> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let number = nodes.len() as u8 + 1;
        anyhow::ensure!(number <= MAX_NODES, "at most {MAX_NODES} nodes");
        let node = Arc::new(Node::new(self, name, number).context("making a node")?);
        nodes.push(Arc::clone(&node));
        Ok(node)
    }

    /// Adds a pod to `node`, and to the mesh directory unless the specification says no.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pod(&self, node: &Arc<Node>, spec: PodSpec) -> anyhow::Result<Pod> {
        let announced = spec.announced;
        let pod = Pod::new(self, node, spec)?;
        if announced {
            self.mesh.write(&pod.file(), &pod.yaml())?;
        }
        Ok(pod)
    }

    /// The mesh directory of this cluster.
    #[must_use]
    pub fn mesh(&self) -> &MeshDir {
        &self.mesh
    }

    /// The cluster's own directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the output of programs goes.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The file that pods see as `/etc/hosts`.
    #[must_use]
    pub fn hosts_file(&self) -> PathBuf {
        self.dir.join("hosts")
    }

    /// Makes `name` known to every pod.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn host(&self, name: &str, address: IpAddr) -> io::Result<()> {
        let mut hosts = fs::File::options().append(true).open(self.hosts_file())?;
        writeln!(hosts, "{address} {name}")
    }

    /// A role of the harness that sits on the fabric, where the links of all nodes meet.
    pub fn fabric_role(&self, role: &str) -> Program {
        Program::role(&self.fabric_place(), role)
    }

    fn fabric_place(&self) -> Place {
        let logs = self.logs().join("fabric");
        Place { namespace: self.fabric.path(), hosts: None, logs, confined: false }
    }
}

/// A machine of the cluster.
#[derive(Debug)]
pub struct Node {
    name: String,
    number: u8,
    netns: NetNs,
    pods: AtomicU8,
    place: Place,
}

impl Node {
    fn new(cluster: &Cluster, name: &str, number: u8) -> anyhow::Result<Self> {
        let netns = NetNs::new()?;
        let port = port_name(number);
        cluster.fabric.run(|| {
            let link = Link::open()?;
            link.add_veth(&port, "eth0", std::os::fd::AsFd::as_fd(&netns))?;
            link.set_master(&port, "fabric")?;
            link.up(&port)
        })?;
        netns.run(|| {
            let link = Link::open()?;
            let (ipv4, ipv6) = node_addresses(number);
            link.add_address("eth0", ipv4.into(), 24)?;
            link.add_address("eth0", ipv6.into(), 64)?;
            link.up("eth0")?;
            for other in (1..=MAX_NODES).filter(|other| *other != number) {
                let (via4, via6) = node_addresses(other);
                let (net4, net6) = pod_networks(other);
                link.add_route((net4.into(), 24), Some(via4.into()), "eth0")?;
                link.add_route((net6.into(), 64), Some(via6.into()), "eth0")?;
            }
            Ok(())
        })?;
        netns.set("ipv4/ip_forward", "1")?;
        netns.set("ipv6/conf/all/forwarding", "1")?;
        netns.set("ipv4/conf/all/rp_filter", "0")?;
        let logs = cluster.logs().join(name);
        let place = Place { namespace: netns.path(), hosts: None, logs, confined: false };
        Ok(Self { name: name.to_owned(), number, netns, pods: AtomicU8::new(0), place })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address on the fabric.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        node_addresses(self.number).0.into()
    }

    /// Its network namespace.
    #[must_use]
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// The interface on the fabric that leads to this node.
    #[must_use]
    pub fn port(&self) -> String {
        port_name(self.number)
    }

    /// A program on this node, with every capability.
    pub fn program(&self, program: &str) -> Program {
        Program::new(&self.place, program)
    }

    /// A role of the harness on this node, with every capability.
    pub fn role(&self, role: &str) -> Program {
        Program::role(&self.place, role)
    }

    /// Asks an HTTP server that this node can reach; gives status and body.
    ///
    /// # Errors
    /// The server is not reachable or does not speak HTTP.
    pub fn get(&self, address: &str, path: &str) -> io::Result<(u16, String)> {
        get(&self.netns, address, path)
    }

    pub(crate) fn next_pod(&self) -> u8 {
        self.pods.fetch_add(1, Ordering::Relaxed) + 2
    }

    pub(crate) fn pod_addresses(&self, pod: u8) -> (Ipv4Addr, Ipv6Addr) {
        let (net4, net6) = pod_networks(self.number);
        let [first, second, third, _] = net4.octets();
        let mut segments = net6.segments();
        segments[7] = pod.into();
        (Ipv4Addr::new(first, second, third, pod), Ipv6Addr::from(segments))
    }

    /// What the pods of this node use as their router.
    pub(crate) fn gateway(&self) -> (Ipv4Addr, Ipv6Addr) {
        self.pod_addresses(1)
    }

    /// Lays the cable from this node to a pod and routes the pod's addresses over it.
    pub(crate) fn plug(
        &self,
        number: u8,
        pod: &NetNs,
        ipv4: Ipv4Addr,
        ipv6: Ipv6Addr,
    ) -> io::Result<()> {
        let (gateway4, gateway6) = self.gateway();
        self.netns.run(|| {
            let link = Link::open()?;
            let port = format!("pod{number}");
            link.add_veth(&port, "eth0", std::os::fd::AsFd::as_fd(pod))?;
            link.add_address(&port, gateway4.into(), 32)?;
            link.add_address(&port, gateway6.into(), 128)?;
            link.up(&port)?;
            link.add_route((ipv4.into(), 32), None, &port)?;
            link.add_route((ipv6.into(), 128), None, &port)
        })
    }
}

fn port_name(node: u8) -> String {
    format!("node{node}")
}

fn node_addresses(node: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 0, 0, node), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, node.into()))
}

fn pod_networks(node: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, node, 0, 0), Ipv6Addr::new(0xfd00, node.into(), 0, 0, 0, 0, 0, 0))
}

/// One HTTP request from within a namespace, on a connection of its own.
pub(crate) fn get(netns: &NetNs, address: &str, path: &str) -> io::Result<(u16, String)> {
    ask(netns, "GET", address, path)
}

/// As `get`, with another method; no body.
pub(crate) fn ask(
    netns: &NetNs,
    method: &str,
    address: &str,
    path: &str,
) -> io::Result<(u16, String)> {
    netns.run(|| {
        let address = address.parse().map_err(io::Error::other)?;
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let port = address.port();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not HTTP: {head}")))?;
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            return Ok((status, unchunked(body)?));
        }
        Ok((status, body.to_owned()))
    })
}

/// RFC 9112 §7.1, without extensions and trailers.
fn unchunked(mut body: &str) -> io::Result<String> {
    let broken = || io::Error::other("a broken chunk");
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").ok_or_else(broken)?;
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        whole.push_str(rest.get(..size).ok_or_else(broken)?);
        if size == 0 {
            return Ok(whole);
        }
        body = rest[size..].strip_prefix("\r\n").ok_or_else(broken)?;
    }
}
