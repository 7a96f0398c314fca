//! What a pod may take of its node: who takes more is held back and named, and nothing is lost.

use std::time::Duration;

use anyhow::ensure;
use harness::asking::Ask;
use harness::eventually::eventually;
use harness::pod::{Pod, PodSpec};
use harness::process::Running;
use harness::proxies::Ztunnel;
use harness::role::{bulk, load};

use super::mesh::{Mesh, SOON};
use super::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("shares::a_pod_out_of_window_is_named_and_loses_nothing", &[], out_of_window),
    ("shares::a_loud_pod_waits_for_the_turn_of_a_quiet_one", &[], turns),
    ("shares::a_pod_that_fills_its_worker_leaves_the_other_alone", &[], workers),
];

const LONG: Duration = Duration::from_secs(600);

fn serve_bulk(mesh: &Mesh) -> anyhow::Result<Running> {
    let mut bulk = mesh.server.role("bulk").args(["--listen", "[::]:7"]).start()?;
    bulk.line_with("listening", SOON)?;
    Ok(bulk)
}

/// Room for one window to grow once, and bulk in eight streams.
fn out_of_window() -> anyhow::Result<()> {
    let mesh = Mesh::with("window", "1h", &[("CULVERT_POD_WINDOW", "300000")])?;
    let _bulk = serve_bulk(&mesh)?;
    let target = format!("{}:7", mesh.server.ip());
    for (taker, ztunnel, down) in [
        (&mesh.server, &mesh.far_ztunnel, &[][..]),
        (&mesh.client, &mesh.near_ztunnel, &["--down"][..]),
    ] {
        let report: bulk::Report = mesh
            .client
            .role("bulk")
            .args(["--target", &target, "--streams", "8", "--seconds", "2"])
            .args(down)
            .start()?
            .result(LONG)?;
        ensure!(report.errors.is_empty() && report.bytes > 1 << 20, "{report:?}");
        let name = taker.name();
        eventually(SOON, "the pod is named", || {
            let metrics = ztunnel.metrics().map_err(|error| error.to_string())?;
            let labels = format!("limit=\"window_bytes\",namespace=\"default\",pod=\"{name}\"");
            let counted = metrics.contains(&format!("culvert_pod_limit_waits_total{{{labels}}}"));
            let told = ztunnel.log().iter().any(|line| {
                line["limit"] == "window_bytes" && line["pod"] == format!("default/{name}")
            });
            if counted && told { Ok(()) } else { Err(format!("{counted} {told}: {metrics}")) }
        })?;
    }
    Ok(())
}

/// What `ztunnel` says of `pod`, under a name and with a further label.
fn counted(ztunnel: &Ztunnel, name: &str, label: &str, pod: &Pod) -> anyhow::Result<f64> {
    ztunnel.metric(&format!("{name}{{{label}namespace=\"default\",pod=\"{}\"}}", pod.name()))
}

fn seconds(ztunnel: &Ztunnel, pod: &Pod) -> anyhow::Result<f64> {
    counted(ztunnel, "culvert_pod_worker_seconds_total", "", pod)
}

fn held_back(ztunnel: &Ztunnel, limit: &str, pod: &Pod) -> anyhow::Result<f64> {
    counted(ztunnel, "culvert_pod_limit_waits_total", &format!("limit=\"{limit}\","), pod)
}

/// Four streams to the client, as fast as they go.
fn loud(mesh: &Mesh, secs: u32) -> anyhow::Result<Running> {
    let (target, secs) = (format!("{}:7", mesh.server.ip()), secs.to_string());
    let program = mesh.client.role("bulk").args(["--target", &target, "--streams", "4", "--down"]);
    program.args(["--seconds", &secs]).start()
}

/// A pod beside it with 100 requests per second.
fn quiet(mesh: &Mesh, pod: &Pod, secs: u32) -> anyhow::Result<Running> {
    let (target, secs) = (format!("{}:80", mesh.server.ip()), secs.to_string());
    let program = pod.role("load").args(["--target", &target, "--rate", "100"]);
    let mut load = program.args(["--connections", "4", "--seconds", &secs]).start()?;
    load.line_with("counting", SOON)?;
    Ok(load)
}

fn turns() -> anyhow::Result<()> {
    let variables = [("CULVERT_WORKERS", "1"), ("CULVERT_POD_TURN", "100")];
    let mesh = Mesh::with("turns", "1h", &variables)?;
    let _servers = [mesh.serve("http", 80)?, serve_bulk(&mesh)?];
    let beside = mesh.pod(PodSpec::new("quiet"))?;
    let (mut load, mut bulk) = (quiet(&mesh, &beside, 2)?, loud(&mesh, 3)?);
    let (load, bulk): (load::Report, bulk::Report) = (load.result(LONG)?, bulk.result(LONG)?);
    ensure!(load.failed() == 0 && load.ok > 100, "{load:?}");
    ensure!(bulk.errors.is_empty() && bulk.bytes > 1 << 20, "{bulk:?}");
    let ztunnel = &mesh.near_ztunnel;
    eventually(SOON, "who was loud is named", || {
        let (loud, quiet) = (seconds(ztunnel, &mesh.client)?, seconds(ztunnel, &beside)?);
        ensure!(quiet > 0.0 && loud > 0.2 && loud > quiet, "loud {loud} s, quiet {quiet} s");
        let [loud, quiet] = [&mesh.client, &beside].map(|pod| held_back(ztunnel, "turn", pod));
        let (loud, quiet) = (loud?, quiet?);
        ensure!(loud > 0.0 && loud > quiet, "turns over: loud {loud}, quiet {quiet}");
        Ok(())
    })?;
    // What is said of a pod ends with it.
    mesh.cluster.mesh().remove(&beside.file())?;
    eventually(SOON, "nothing is said of it any more", || {
        let metrics = ztunnel.metrics()?;
        let mut lines = metrics.lines();
        let told = lines.find(|line| line.contains("culvert_pod_") && line.contains("quiet"));
        ensure!(told.is_none(), "{told:?}");
        Ok(())
    })
}

fn workers() -> anyhow::Result<()> {
    let mesh = Mesh::with("workers", "1h", &[("CULVERT_WORKERS", "2")])?;
    let _servers = [mesh.serve("http", 80)?, serve_bulk(&mesh)?];
    let beside = mesh.pod(PodSpec::new("quiet"))?;
    let (mut load, bulk) = (quiet(&mesh, &beside, 3)?, loud(&mesh, 60)?);
    let target = format!("{}:80", mesh.server.ip()).parse()?;
    eventually(SOON, "who was loud is kept back", || {
        let answer = Ask::get(target, "/").from(&mesh.client)?;
        ensure!(answer.status == 200, "{answer:?}");
        let kept = held_back(&mesh.near_ztunnel, "workers", &mesh.client)?;
        ensure!(kept > 0.0, "{kept} times");
        Ok(())
    })?;
    ensure!(held_back(&mesh.near_ztunnel, "workers", &beside)? == 0.0, "the quiet one");
    let log = mesh.near_ztunnel.log();
    let told = |line: &&serde_json::Value| line["limit"] == "workers";
    let told = log.iter().find(told);
    ensure!(told.is_some_and(|line| line["pod"] == "default/client"), "{told:?}");
    let load: load::Report = load.result(LONG)?;
    ensure!(load.failed() == 0 && load.ok > 100, "{load:?}");
    drop(bulk);
    Ok(())
}
