//! Pods that come, go and are in the way, and processes that take each other's place.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::cluster::{Cluster, Node};
use harness::eventually::eventually;
use harness::pod::{Pod, PodSpec};
use harness::process::{Place, Program, Running};
use harness::proxies::{Authority, Ztunnel};
use harness::role::{load, tick};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::process::Signal;
use serde_json::Value;

use super::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("pods::a_port_that_is_taken_is_told_and_tried_again", &[], a_port_is_taken),
    ("pods::a_namespace_that_vanishes_takes_nobody_with_it", &[], a_namespace_vanishes),
    ("pods::a_pod_that_returns_under_its_name_is_served_again", &[], a_pod_returns),
    ("pods::a_process_without_descriptors_pauses_and_recovers", &[], out_of_descriptors),
    ("pods::a_killed_process_leaves_its_pods_to_its_successor", &[], a_successor_takes_over),
    ("pods::a_dedicated_process_carries_traffic_whatever_its_rights", &[], dedicated),
];

/// Refused pods are tried again every 5 s.
const SOON: Duration = Duration::from_secs(30);

/// One node with a ztunnel, a client, and a server with an HTTP server on port 80.
struct World {
    _http: Running,
    client: Pod,
    server: Pod,
    ztunnel: Ztunnel,
    authority: Authority,
    node: Arc<Node>,
    cluster: Cluster,
}

impl World {
    fn new(name: &str) -> anyhow::Result<Self> {
        let cluster = Cluster::new(name)?;
        let node = cluster.node("near")?;
        let client = cluster.pod(&node, PodSpec::new("client"))?;
        let server = cluster.pod(&node, PodSpec::new("server"))?;
        let authority = Authority::start(&cluster, &node, "1h")?;
        let mut ztunnel = Ztunnel::start(&cluster, &node, &authority)?;
        ztunnel.ready()?;
        let http = http(&server)?;
        let world = Self { _http: http, client, server, ztunnel, authority, node, cluster };
        world.reaches(&world.server)?;
        Ok(world)
    }

    /// The client gets an answer from `pod`, through a tunnel.
    fn reaches(&self, pod: &Pod) -> anyhow::Result<()> {
        let target = SocketAddr::new(pod.ip(), 80);
        let before = self.tunnelled(target);
        eventually(SOON, &format!("{} answers through a tunnel", pod.name()), || {
            let (status, _) = self.client.get(&target.to_string(), "/")?;
            ensure!(status == 200, "status {status}");
            ensure!(self.tunnelled(target) > before, "not through a tunnel");
            anyhow::Ok(())
        })
    }

    fn tunnelled(&self, target: SocketAddr) -> usize {
        let told = |line: &Value| {
            line["direction"] == "outbound" && line["dst.hbone_addr"] == target.to_string()
        };
        self.ztunnel.log().iter().filter(|line| told(line)).count()
    }

    /// Waits for a line of the log that `expected` recognises.
    fn told(&self, what: &str, expected: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        eventually(SOON, what, || {
            self.ztunnel.log().into_iter().find(&expected).ok_or("no such line")
        })
    }

    fn readiness(&self) -> anyhow::Result<(u16, String)> {
        Ok(self.node.get("127.0.0.1:15021", "/healthz/ready")?)
    }

    fn is_ready_again(&self) -> anyhow::Result<()> {
        eventually(SOON, "the node is ready", || {
            let (status, body) = self.readiness()?;
            ensure!(status == 200, "{}", body.trim_end());
            anyhow::Ok(())
        })
    }
}

fn http(pod: &Pod) -> anyhow::Result<Running> {
    let mut http = pod.role("http").args(["--listen", "[::]:80"]).start()?;
    http.line_with("listening", SOON)?;
    Ok(http)
}

fn a_port_is_taken() -> anyhow::Result<()> {
    let world = World::new("port-taken")?;
    let busy = world.cluster.pod(&world.node, PodSpec::new("busy").unannounced())?;
    let mut squatter = busy.role("echo").args(["--listen", "[::]:15008"]).start()?;
    squatter.line_with("listening", SOON)?;
    world.cluster.mesh().write(&busy.file(), &busy.yaml())?;
    let line = world.told("the port is told", |line| line["cause"] == "PORT_TAKEN")?;
    ensure!(line["pod"] == "default/busy", "{line}");
    let reason = line["reason"].as_str().unwrap_or_default();
    let expected = "cannot listen on port 15008 in the pod: Address already in use";
    ensure!(reason.starts_with(expected), "{line}");
    let (status, body) = world.readiness()?;
    ensure!(status == 500 && body.contains("workload proxy manager"), "{status}: {body}");
    world.reaches(&world.server)?;
    drop(squatter);
    world.is_ready_again()?;
    let _http = http(&busy)?;
    world.reaches(&busy)
}

/// A path by which a namespace is found until this is dropped, as `ip netns add` makes it.
struct Name(PathBuf);

impl Name {
    fn new(world: &World, pod: &Pod) -> anyhow::Result<Self> {
        let path = world.cluster.dir().join(format!("netns-{}", pod.name()));
        std::fs::write(&path, "")?;
        mount_bind(pod.netns().path(), &path).context("naming a namespace")?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
        let _ = std::fs::remove_file(&self.0);
    }
}

fn a_namespace_vanishes() -> anyhow::Result<()> {
    let world = World::new("vanished")?;
    let gone = world.cluster.pod(&world.node, PodSpec::new("gone").unannounced())?;
    let http = http(&gone)?;
    let name = Name::new(&world, &gone)?;
    let yaml = gone.yaml_with_netns(&name.path().display().to_string());
    world.cluster.mesh().write(&gone.file(), &yaml)?;
    world.reaches(&gone)?;
    drop((name, http));
    world.told("the loss is told", |line| {
        line["message"] == "the pod's network namespace has vanished"
    })?;
    // It is tried again, and refused for what it is; that keeps no node from being ready.
    let line = world.told("the refusal is told", |line| line["cause"] == "NETNS_UNUSABLE")?;
    ensure!(line["pod"] == "default/gone", "{line}");
    world.is_ready_again()?;
    world.reaches(&world.server)?;
    eventually(SOON, "the pod is not counted", || {
        let metrics = world.ztunnel.metrics()?;
        ensure!(metrics.contains("\nworkload_manager_active_proxy_count 2\n"), "{metrics}");
        anyhow::Ok(())
    })?;
    // The same name for the same namespace brings it back.
    let _name = Name::new(&world, &gone)?;
    let _http = self::http(&gone)?;
    world.reaches(&gone)
}

fn a_pod_returns() -> anyhow::Result<()> {
    let world = World::new("returned")?;
    let mut echo = world.server.role("echo").args(["--listen", "[::]:7"]).start()?;
    echo.line_with("listening", SOON)?;
    let target = format!("{}:7", world.server.ip());
    let mut open = world.client.role("tick").args(["--target", &target]).start()?;
    open.line_with("connected", SOON)?;
    world.cluster.mesh().remove(&world.server.file())?;
    // Whoever talked to it was told that it has gone.
    let life: tick::Report = open.result(SOON)?;
    ensure!(life.broken.is_some(), "{life:?}");
    world.told("the pod leaves", |line| line["message"] == "pod leaves")?;
    world.cluster.mesh().write(&world.server.file(), &world.server.yaml())?;
    world.reaches(&world.server)?;
    // The same name in another namespace, by one edit.
    let other = world.cluster.pod(&world.node, PodSpec::new("server").unannounced())?;
    let _http = http(&other)?;
    world.cluster.mesh().write(&other.file(), &other.yaml())?;
    world.reaches(&other)?;
    world.is_ready_again()
}

fn out_of_descriptors() -> anyhow::Result<()> {
    let mut world = World::new("descriptors")?;
    let mut echo = world.server.role("echo").args(["--listen", "[::]:7"]).start()?;
    echo.line_with("listening", SOON)?;
    let target = format!("{}:7", world.server.ip());
    let mut open = world.client.role("tick").args(["--target", &target]).start()?;
    open.line_with("connected", SOON)?;
    let held = world.ztunnel.process().descriptors()?;
    world.ztunnel.process().limit_descriptors(held + 40)?;
    let flood = ["--target", &target, "--connections", "200", "--opening", "200"];
    let flood = world.client.role("hold").args(flood).start()?;
    let pauses = |line: &Value| line["message"] == "cannot accept, pausing";
    let line = world.told("the pause is told", pauses)?;
    ensure!(
        line["error"].as_str().is_some_and(|text| text.contains("Too many open files")),
        "{line}"
    );
    drop(flood);
    world.reaches(&world.server)?;
    // What was open before has lived through it, and the log was not flooded.
    let life: tick::Report = open.finish(SOON)?;
    ensure!(life.broken.is_none(), "{life:?}");
    let told = world.ztunnel.log().iter().filter(|line| pauses(line)).count();
    ensure!(told < 100, "{told} lines about pauses");
    Ok(())
}

fn a_successor_takes_over() -> anyhow::Result<()> {
    let mut world = World::new("successor")?;
    let mut second = Ztunnel::start(&world.cluster, &world.node, &world.authority)?;
    second.ready()?;
    world.ztunnel.process().signal(Signal::KILL)?;
    world.ztunnel.process().wait(SOON)?;
    world.ztunnel = second;
    // From the moment at which the kernel has closed the listeners of the dead.
    let target = format!("{}:80", world.server.ip());
    let load = ["--target", &target, "--requests", "300", "--rate", "300", "--fresh"];
    let report: load::Report = world.client.role("load").args(load).start()?.result(SOON)?;
    ensure!(report.failed() == 0 && report.ok == 300, "{report:?}");
    world.reaches(&world.server)
}

fn dedicated() -> anyhow::Result<()> {
    let world = World::new("dedicated")?;
    let far = world.cluster.node("far")?;
    let own = world.cluster.pod(&far, PodSpec::new("own"))?;
    let _http = http(&own)?;
    let token = world.authority.token("far")?;
    // As most containers run, and as one with every right: then there is still nothing that would
    // bring replies to a kept source address back.
    let privileged = Place { confined: false, hosts: None, ..own.place().clone() };
    for (place, name) in [(own.place(), "confined"), (&privileged, "privileged")] {
        let mut ztunnel = Program::role(place, "ztunnel")
            .args(["run", "--dedicated", "default/own", "--ca", &world.authority.address()])
            .arg("--mesh")
            .arg(world.cluster.mesh().path())
            .arg("--join-token")
            .arg(&token)
            .arg("--state")
            .arg(world.cluster.dir().join(name))
            .start()?;
        ztunnel.line_with("\tready", SOON)?;
        world.reaches(&own).with_context(|| format!("{name}: {}", ztunnel.stdout()))?;
        let served = ztunnel.line_with("direction=\"inbound\"", SOON)?;
        ensure!(served.contains("src.identity=\"spiffe://cluster.local/ns/default/sa/client\""));
        ensure!(!ztunnel.stdout().contains("cannot keep the client's address"), "noise");
        ztunnel.signal(Signal::TERM)?;
        ensure!(ztunnel.wait(SOON)?.success(), "{}", ztunnel.stderr());
    }
    Ok(())
}
