//! A pod: a network namespace with an address in both families, routed by its node.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Context as _;

use crate::cluster::{Cluster, Node};
use crate::netlink::Link;
use crate::netns::NetNs;
use crate::process::{Place, Program};

/// What a pod is to be.
#[must_use]
#[derive(Clone, Debug)]
pub struct PodSpec {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) meshed: bool,
    pub(crate) announced: bool,
}

impl PodSpec {
    /// A pod in the mesh, in namespace `default`, whose service account and `app` label are `name`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            service_account: name.to_owned(),
            labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
            annotations: BTreeMap::new(),
            meshed: true,
            announced: true,
        }
    }

    /// Puts it into another namespace.
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Runs it as another service account.
    pub fn service_account(mut self, account: &str) -> Self {
        account.clone_into(&mut self.service_account);
        self
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace_name(&self) -> &str {
        &self.namespace
    }

    /// Its service account.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.service_account
    }

    /// Gives it a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Gives it an annotation.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Keeps it out of the mesh, though the mesh directory knows it.
    pub fn outside(mut self) -> Self {
        self.meshed = false;
        self
    }

    /// Makes it without writing it to the mesh directory; `Pod::announce` does that later.
    pub fn unannounced(mut self) -> Self {
        self.announced = false;
        self
    }
}

/// A running pod: it lives as long as this value.
#[derive(Debug)]
pub struct Pod {
    spec: PodSpec,
    node: Arc<Node>,
    netns: NetNs,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    place: Place,
}

impl Pod {
    pub(crate) fn new(cluster: &Cluster, node: &Arc<Node>, spec: PodSpec) -> anyhow::Result<Self> {
        let netns = NetNs::new().context("making a pod's namespace")?;
        let number = node.next_pod();
        let (ipv4, ipv6) = node.pod_addresses(number);
        let (gateway4, gateway6) = node.gateway();
        node.plug(number, &netns, ipv4, ipv6)?;
        netns.run(|| {
            let link = Link::open()?;
            link.add_address("eth0", ipv4.into(), 32)?;
            link.add_address("eth0", ipv6.into(), 128)?;
            link.up("eth0")?;
            link.add_route((gateway4.into(), 32), None, "eth0")?;
            link.add_route((gateway6.into(), 128), None, "eth0")?;
            link.add_route((Ipv4Addr::UNSPECIFIED.into(), 0), Some(gateway4.into()), "eth0")?;
            link.add_route((Ipv6Addr::UNSPECIFIED.into(), 0), Some(gateway6.into()), "eth0")
        })?;
        // Servers bind low ports without a capability, as in Kubernetes.
        netns.set("ipv4/ip_unprivileged_port_start", "0")?;
        netns.set("ipv4/conf/all/rp_filter", "0")?;
        netns.set("ipv4/ping_group_range", "0 2147483647").ok();
        let place = Place {
            namespace: netns.path(),
            hosts: Some(cluster.hosts_file()),
            logs: cluster.logs().join(&spec.name),
            confined: true,
        };
        Ok(Self { spec, node: Arc::clone(node), netns, ipv4, ipv6, place })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ipv4.into()
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn ipv6(&self) -> IpAddr {
        self.ipv6.into()
    }

    /// The node that it runs on.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Its network namespace.
    #[must_use]
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// What it was made from.
    pub fn spec(&self) -> &PodSpec {
        &self.spec
    }

    /// A program in this pod.
    pub fn program(&self, program: &str) -> Program {
        Program::new(&self.place, program)
    }

    /// A role of the harness in this pod.
    pub fn role(&self, role: &str) -> Program {
        Program::role(&self.place, role)
    }

    /// Where programs of this pod run.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The pod's identity in trust domain `cluster.local`.
    #[must_use]
    pub fn identity(&self) -> String {
        let PodSpec { namespace, service_account, .. } = &self.spec;
        format!("spiffe://cluster.local/ns/{namespace}/sa/{service_account}")
    }

    /// The Kubernetes object of this pod.
    #[must_use]
    pub fn yaml(&self) -> String {
        self.yaml_with_netns(&self.netns.path().display().to_string())
    }

    /// The same with another path in the annotation that names the network namespace.
    #[must_use]
    pub fn yaml_with_netns(&self, netns: &str) -> String {
        let PodSpec { name, namespace, service_account, .. } = &self.spec;
        let mode = if self.spec.meshed { "ambient" } else { "none" };
        let lines = |map: &BTreeMap<String, String>| -> String {
            map.iter().map(|(key, value)| format!("    {key}: {value:?}\n")).collect()
        };
        let labels = lines(&self.spec.labels);
        let annotations = lines(&self.spec.annotations);
        let (node, ipv4, ipv6) = (self.node.name(), self.ipv4, self.ipv6);
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  \
             uid: {namespace}-{name}\n  labels:\n    istio.io/dataplane-mode: {mode}\n{labels}  \
             annotations:\n    culvert.dev/netns: {netns}\n{annotations}\
             spec:\n  nodeName: {node}\n  serviceAccountName: {service_account}\n\
             status:\n  phase: Running\n  podIP: {ipv4}\n  podIPs:\n  - ip: {ipv4}\n  - ip: \"{ipv6}\"\n  \
             conditions:\n  - type: Ready\n    status: \"True\"\n"
        )
    }

    /// The name of this pod's file in the mesh directory.
    #[must_use]
    pub fn file(&self) -> String {
        format!("pod-{}-{}.yaml", self.spec.namespace, self.spec.name)
    }

    /// Asks an HTTP server that this pod's namespace can reach; gives status and body.
    ///
    /// # Errors
    /// The server is not reachable or does not speak HTTP.
    pub fn get(&self, address: &str, path: &str) -> io::Result<(u16, String)> {
        crate::cluster::get(&self.netns, address, path)
    }
}
