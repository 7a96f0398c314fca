//! Waypoints that come and go while requests are on their way.

use std::time::Duration;

use anyhow::ensure;
use harness::eventually::eventually;
use harness::pod::Pod;
use harness::process::Running;
use harness::role::{load, tick};
use harness::waypoint::Waypoint;
use rustix::process::Signal;

use super::super::mesh::{SOON, serve};
use super::super::suite::Case;
use super::scene::{PATIENCE, Scene};

pub(crate) const CASES: &[Case] = &[
    ("waypoint::lifecycle::scaling_loses_no_request", &[], scaling_loses_no_request),
    ("waypoint::lifecycle::a_killed_waypoint_costs_what_was_in_flight", &[], a_killed_waypoint),
];

/// Requests per second. A debug build beside three other tests on two CPUs has to carry them.
const RATE: &str = "200";
/// Connections that last while waypoints come and go.
const STREAMS: usize = 50;

fn load(scene: &Scene, connections: u32) -> anyhow::Result<Running> {
    let mut load = scene
        .client
        .role("load")
        .args(["--rate", RATE, "--connections", &connections.to_string(), "--path", "/bytes/100"])
        .args(["--target", &Scene::at("echo").to_string()])
        .start()?;
    load.line_with("counting", SOON)?;
    Ok(load)
}

/// One more instance, in force: the clients' proxies know it.
fn add(scene: &Scene, name: &str) -> anyhow::Result<(Pod, Waypoint)> {
    let spec = Waypoint::pod(name, "shop", "waypoint").unannounced();
    let pod = scene.cluster.pod(scene.v1.node(), spec)?;
    // The certificate is for a pod that the mesh knows, and another instance has the same.
    let program = Waypoint::program(&scene.cluster, &pod, &scene.authority)?;
    let waypoint = Waypoint::run(program.env(PATIENCE.0, PATIENCE.1))?;
    waypoint.ready(&pod)?;
    scene.cluster.mesh().write(&pod.file(), &pod.yaml())?;
    Ok((pod, waypoint))
}

/// Ends an instance as Kubernetes does: SIGTERM and withdrawal at the same time, in no order.
fn end(scene: &Scene, pod: &Pod, waypoint: &mut Waypoint) -> anyhow::Result<()> {
    waypoint.signal(Signal::TERM)?;
    scene.cluster.mesh().remove(&pod.file())?;
    ensure!(waypoint.process().wait(SOON)?.success());
    Ok(())
}

/// 1 → 3 → 1 under load, on kept-alive connections, with streams that last.
fn scaling_loses_no_request() -> anyhow::Result<()> {
    let mut scene = Scene::new("scaling")?;
    let _echo = [serve(&scene.v1, "echo", 9090)?, serve(&scene.v2, "echo", 9090)?];
    let target = Scene::port("echo", 9090).to_string();
    let streams: Vec<Running> = (0..STREAMS)
        .map(|_| scene.client.role("tick").args(["--target", &target]).start())
        .collect::<Result<_, _>>()?;
    let running = load(&scene, 16)?;
    let mut second = add(&scene, "waypoint-2")?;
    let third = add(&scene, "waypoint-3")?;
    // New connections go to all of them.
    for (_, waypoint) in [&second, &third] {
        eventually(SOON, "the new instance is used", || {
            scene.ask("echo", "/")?;
            ensure!(waypoint.log().iter().any(|line| line["method"] == "GET"));
            Ok(())
        })?;
    }
    let (pod, waypoint) = (&scene.waypoint_pod, &mut scene.waypoint);
    waypoint.signal(Signal::TERM)?;
    scene.cluster.mesh().remove(&pod.file())?;
    waypoint.process().line_with("\"ending\"", SOON)?;
    // It waits for them, as long as the deadline allows.
    for stream in streams {
        let report: tick::Report = stream.finish(SOON)?;
        ensure!(report.broken.is_none(), "{report:?}");
    }
    ensure!(waypoint.process().wait(SOON)?.success());
    end(&scene, &second.0, &mut second.1)?;
    let report: load::Report = running.finish(SOON)?;
    ensure!(report.errors.is_empty() && report.ok > 50, "{report:?}");
    drop(third);
    Ok(())
}

/// SIGKILL with another replica alive: what is new succeeds at once, and what was lost is told.
fn a_killed_waypoint() -> anyhow::Result<()> {
    let mut scene = Scene::new("killed")?;
    let second = add(&scene, "waypoint-2")?;
    let running = load(&scene, 16)?;
    eventually(SOON, "the second instance is used", || {
        scene.ask("echo", "/")?;
        ensure!(second.1.log().iter().any(|line| line["method"] == "GET"));
        Ok(())
    })?;
    scene.waypoint.signal(Signal::KILL)?;
    scene.waypoint.process().wait(SOON)?;
    for _ in 0..50 {
        let answer = scene.ask("echo", "/")?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    let report: load::Report = running.finish(SOON)?;
    let lost: u64 = report.errors.values().sum();
    ensure!(lost <= 16, "one request per connection can be in flight: {report:?}");
    let ms = report.errors_at_ms.map_or(0, |(first, last)| last - first);
    ensure!(Duration::from_millis(ms) < Duration::from_millis(500), "{report:?}");
    if lost > 0 {
        let told = scene.near_ztunnel.log().iter().any(|line| !line["cause"].is_null());
        ensure!(told, "the caller's ztunnel names a cause");
    }
    Ok(())
}
