//! Long-lived connections while the proxy that carries them is replaced.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::eventually::eventually;
use harness::proxies::Ztunnel;
use harness::role::tick;
use rustix::process::Signal;

use super::mesh::{Mesh, SOON};
use super::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("drain::a_connection_that_ends_before_the_deadline_is_not_cut", &[], ends_in_time),
    ("drain::what_outlives_the_deadline_is_cut_and_told", &[], outlives_the_deadline),
];

fn ends_in_time() -> anyhow::Result<()> {
    let mut mesh = Mesh::with("in-time", "1h", &[("CONNECTION_TERMINATION_DEADLINE", "120s")])?;
    let _echo = mesh.serve("echo", 7)?;
    let mut old = mesh.tick(&mesh.client, 7)?;
    // On both sides the second process stands beside the first, which is then asked to end.
    let mut second_near = Ztunnel::start(&mesh.cluster, &mesh.near, &mesh.authority)?;
    let mut second_far = Ztunnel::start(&mesh.cluster, &mesh.far, &mesh.authority)?;
    second_near.ready()?;
    second_far.ready()?;
    let first = [&mut mesh.near_ztunnel, &mut mesh.far_ztunnel];
    for ztunnel in first {
        ztunnel.process().signal(Signal::TERM)?;
        ztunnel.process().line_with("\"ending\"", SOON)?;
    }
    let new: tick::Report = mesh.tick(&mesh.client, 7)?.finish(SOON)?;
    ensure!(new.broken.is_none(), "{new:?}");
    for second in [&second_near, &second_far] {
        eventually(SOON, "the second process takes what is new", || {
            let told = second.log().into_iter().any(|line| line["src.workload"] == "client");
            if told { Ok(()) } else { Err("no line of a connection") }
        })?;
    }
    for ztunnel in [&mut mesh.near_ztunnel, &mut mesh.far_ztunnel] {
        ensure!(ztunnel.process().is_running()?, "the first process waits for its connection");
    }
    ensure!(old.is_running()?, "the old connection lives on");
    let old: tick::Report = old.finish(SOON)?;
    ensure!(old.broken.is_none(), "{old:?}");
    for ztunnel in [&mut mesh.near_ztunnel, &mut mesh.far_ztunnel] {
        ensure!(ztunnel.process().wait(SOON)?.success());
        ensure!(ztunnel.caused("DRAINED").is_empty());
        ensure!(ztunnel.log().iter().any(|line| line["message"] == "drained"));
    }
    Ok(())
}

fn outlives_the_deadline() -> anyhow::Result<()> {
    let mut mesh = Mesh::with("outlives", "1h", &[("CONNECTION_TERMINATION_DEADLINE", "2s")])?;
    let _echo = mesh.serve("echo", 7)?;
    // A drain of the destination first, then of the source.
    let mut tick = mesh.tick(&mesh.client, 7)?;
    let mut second = Ztunnel::start(&mesh.cluster, &mesh.far, &mesh.authority)?;
    second.ready()?;
    outlives(&mut tick, &mut mesh.far_ztunnel)?;
    let mut tick = mesh.tick(&mesh.client, 7)?;
    outlives(&mut tick, &mut mesh.near_ztunnel)
}

fn outlives(tick: &mut harness::process::Running, ztunnel: &mut Ztunnel) -> anyhow::Result<()> {
    let asked_ms = harness::role::now_ms();
    ztunnel.process().signal(Signal::TERM)?;
    let report: tick::Report = tick.result(SOON)?;
    let (why, at_ms) = report.broken.context("the connection outlives its proxy")?;
    let lived = Duration::from_millis(at_ms.saturating_sub(asked_ms));
    ensure!(lived >= Duration::from_millis(1900), "cut {lived:?} after the signal: {why}");
    ensure!(ztunnel.process().wait(SOON)?.success());
    let cut = ztunnel.caused("DRAINED");
    ensure!(cut.len() == 1 && cut[0]["src.workload"] == "client", "{cut:?}");
    Ok(())
}
