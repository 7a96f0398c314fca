//! The cast: two nodes, ten pods, a waypoint, a certificate authority and a ztunnel per node.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use harness::cluster::{Cluster, Node};
use harness::enter::{find, has_own_processes};
use harness::mesh_dir::Service;
use harness::pod::{Pod, PodSpec};
use harness::process::Running;
use harness::proxies::{Authority, Ztunnel};
use harness::role::sniff;

use crate::market::Market;
use crate::say;

/// For a process to start on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// The shop's virtual address, which no machine has.
const SHOP_VIP: [u8; 4] = [10, 96, 0, 10];
pub(crate) const SHOP_PORT: u16 = 80;
pub(crate) const LEDGER_PORT: u16 = 2525;
pub(crate) const TICK_PORT: u16 = 7007;
const LEAF_TTL: &str = "1h";

/// Everything that runs.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) node_a: Arc<Node>,
    pub(crate) node_b: Arc<Node>,
    pub(crate) authority: Authority,
    pub(crate) ztunnel_a: Ztunnel,
    pub(crate) ztunnel_b: Ztunnel,
    pub(crate) client: Pod,
    pub(crate) intruder: Pod,
    pub shop_v1: Pod,
    pub shop_v2: Pod,
    pub(crate) ledger: Pod,
    pub(crate) outsider: Pod,
    pub(crate) market: Market,
    /// Kept to keep them running.
    _servers: Vec<Running>,
}

impl Scene {
    pub(crate) fn build() -> anyhow::Result<Self> {
        say("Building a mesh of network namespaces on this machine");
        let cluster = Cluster::new("demo")?;
        let (node_a, node_b) = (cluster.node("node-a")?, cluster.node("node-b")?);
        let client = cluster.pod(&node_a, PodSpec::new("client"))?;
        let intruder = cluster.pod(&node_a, PodSpec::new("intruder"))?;
        let shop = |version: &str| {
            PodSpec::new(&format!("shop-{version}")).label("app", "shop").label("version", version)
        };
        let shop_v1 = cluster.pod(&node_a, shop("v1"))?;
        let shop_v2 = cluster.pod(&node_b, shop("v2"))?;
        let ledger = cluster.pod(&node_b, PodSpec::new("ledger"))?;
        let outsider = cluster.pod(&node_b, PodSpec::new("outsider").outside())?;
        say("  2 nodes, 6 pods: client, intruder, shop-v1 on node-a; \
             shop-v2, ledger, outsider on node-b");
        describe(&cluster)?;
        let servers = servers(&[&shop_v1, &shop_v2, &outsider], &ledger)?;
        let authority = Authority::start(&cluster, &node_a, LEAF_TTL)?;
        say(&format!("  certificate authority on node-a, certificates live {LEAF_TTL}"));
        let mut ztunnel_a = Ztunnel::start(&cluster, &node_a, &authority)?;
        let mut ztunnel_b = Ztunnel::start(&cluster, &node_b, &authority)?;
        for (name, ztunnel) in [("node-a", &mut ztunnel_a), ("node-b", &mut ztunnel_b)] {
            let took = ztunnel.ready().with_context(|| format!("ztunnel of {name}"))?;
            say(&format!("  ztunnel on {name} ready after {} ms", took.as_millis()));
        }
        let market = Market::build(&cluster, &node_b, &authority)?;
        for pod in [&market.v1, &market.v2].into_iter().chain(market.stock.pods()) {
            ztunnel_b.serves(pod)?;
        }
        say(
            "  namespace market on node-b: catalogue-v1, catalogue-v2, stock-1, stock-2 and their waypoint",
        );
        Ok(Self {
            cluster,
            node_a,
            node_b,
            authority,
            ztunnel_a,
            ztunnel_b,
            client,
            intruder,
            shop_v1,
            shop_v2,
            ledger,
            outsider,
            market,
            _servers: servers,
        })
    }

    /// Addresses of the pods that are in the mesh.
    pub(crate) fn meshed(&self) -> Vec<IpAddr> {
        let pods = [&self.client, &self.intruder, &self.shop_v1, &self.shop_v2, &self.ledger];
        pods.iter().flat_map(|pod| [pod.ip(), pod.ipv6()]).collect()
    }

    /// Starts to read every frame between the nodes.
    pub(crate) fn watch(&self) -> anyhow::Result<Watch> {
        let mut running =
            self.cluster.fabric_role("sniff").args(["--interface", &self.node_a.port()]).start()?;
        running.line_with("watching", SOON)?;
        Ok(Watch(Some(running)))
    }

    /// Puts a process into each pod by which a person can find it.
    pub(crate) fn stay(&self) -> anyhow::Result<Vec<(String, Running)>> {
        let pods = [
            &self.client,
            &self.intruder,
            &self.shop_v1,
            &self.shop_v2,
            &self.ledger,
            &self.outsider,
            &self.market.v1,
            &self.market.v2,
        ];
        pods.iter()
            .map(|pod| {
                let running = pod.role("stay").args(["--pod", pod.name()]).start()?;
                Ok((pod.name().to_owned(), running))
            })
            .collect()
    }
}

/// The wire watch.
pub(crate) struct Watch(Option<Running>);

impl Watch {
    pub(crate) fn finish(&mut self) -> anyhow::Result<sniff::Report> {
        self.0.take().context("the wire watch was ended twice")?.finish(SOON)
    }
}

/// The objects besides the pods: a service, and who may use the ledger.
fn describe(cluster: &Cluster) -> anyhow::Result<()> {
    let vip = IpAddr::from(SHOP_VIP);
    cluster.mesh().service(&Service {
        name: "shop",
        namespace: "default",
        addresses: &[vip],
        ports: &[(SHOP_PORT, 8080)],
        app: "shop",
    })?;
    cluster.mesh().policy(
        "ledger-clients",
        "ledger",
        "ALLOW",
        "  - from:\n    - source:\n        principals: [\"cluster.local/ns/default/sa/client\"]\n",
    )?;
    cluster.mesh().strict("ledger")?;
    cluster.host("shop", vip)?;
    Ok(())
}

fn servers(http: &[&Pod], ledger: &Pod) -> anyhow::Result<Vec<Running>> {
    let mut servers = Vec::new();
    for pod in http {
        servers.push(pod.role("http").args(["--listen", "[::]:8080", "--name", pod.name()]));
    }
    let at = |port| format!("[::]:{port}");
    servers.push(ledger.role("banner").args(["--listen", &at(LEDGER_PORT), "--name", "ledger"]));
    servers.push(ledger.role("echo").args(["--listen", &at(TICK_PORT)]));
    servers
        .into_iter()
        .map(|program| {
            let mut running = program.start()?;
            running.line_with("listening", SOON)?;
            Ok(running)
        })
        .collect()
}

/// Prints how to enter the pods, and stays until interrupted.
pub(crate) fn hold(scene: &Scene, stays: &[(String, Running)]) -> anyhow::Result<()> {
    say("\nEverything stays up until you press Ctrl-C. From another terminal:\n");
    // In the process namespace `/proc` is right, and shells end with the demo.
    let processes = if has_own_processes() { "--pid " } else { "" };
    for (name, _) in stays {
        say(&format!(
            "  nsenter --target $(pgrep -nf 'stay --pod {name}$') --user --preserve-credentials \
             --mount {processes}--net bash   # in {name}"
        ));
    }
    let mesh = format!("ls {}", scene.cluster.mesh().path().display());
    let log = format!("tail -f {}", scene.ztunnel_a.log_file().display());
    let node = scene.node_a.name();
    say(&format!(
        "\nThen, for example in client (the directories are seen from inside alone):\n\n  \
         {:45} # answered by both versions\n  \
         {mesh:45} # the mesh; edits are in force at once\n  \
         {log:45} # what the ztunnel of {node} says",
        "curl http://shop/",
    ));
    for (program, package) in [("nsenter", "util-linux"), ("pgrep", "procps"), ("curl", "curl")] {
        if find(program).is_none() {
            say(&format!(
                "\nThis machine has no {program}, which is in Debian's package {package}."
            ));
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    })?;
    say("\nTaking everything down.");
    Ok(())
}
