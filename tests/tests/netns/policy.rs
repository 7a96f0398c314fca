//! Policies that change while connections are open.

use anyhow::{Context as _, ensure};
use harness::eventually::eventually;
use harness::pod::{Pod, PodSpec};
use harness::role::tick;

use super::mesh::{Mesh, SOON};
use super::suite::Case;

pub(crate) const CASES: &[Case] =
    &[("policy::a_policy_closes_what_it_denies_and_nothing_else", &[], a_policy_closes)];

/// Five times the bound of 100 ms.
const POLICY_DEADLINE_MS: u64 = 500;

fn a_policy_closes() -> anyhow::Result<()> {
    let mesh = Mesh::new("policy")?;
    let denied = mesh.pod(PodSpec::new("denied"))?;
    let _echo = mesh.serve("echo", 7)?;
    let open = |from: &Pod| (0..3).map(|_| mesh.tick(from, 7)).collect::<anyhow::Result<Vec<_>>>();
    let (stay, mut go) = (open(&mesh.client)?, open(&denied)?);
    let changed_ms = harness::role::now_ms();
    mesh.cluster.mesh().policy(
        "no-denied",
        "server",
        "DENY",
        "  - from:\n    - source:\n        principals: [\"cluster.local/ns/default/sa/denied\"]\n",
    )?;
    for goes in &mut go {
        let goes: tick::Report = goes.result(SOON)?;
        let (why, at_ms) = goes.broken.context("a denied connection lives on")?;
        let took = at_ms.saturating_sub(changed_ms);
        // The directory is read after 100 ms of quiet; the bound counts from there.
        ensure!(took <= 100 + POLICY_DEADLINE_MS, "closed only after {took} ms: {why}");
    }
    for stays in stay {
        let stays: tick::Report = stays.finish(SOON)?;
        ensure!(stays.broken.is_none(), "a connection that nothing denies: {stays:?}");
    }
    let closed = eventually(SOON, "what was closed is told", || {
        let closed = mesh.far_ztunnel.caused("POLICY_CHANGED");
        if closed.len() < go.len() { Err(format!("{closed:?}")) } else { Ok(closed) }
    })?;
    ensure!(closed.len() == go.len(), "more was closed than was denied: {closed:?}");
    for line in closed {
        ensure!(line["src.identity"] == denied.identity(), "who was denied: {line}");
        let why = line["error"].as_str().unwrap_or_default();
        ensure!(why.ends_with("explicitly denied by: default/no-denied"), "which policy: {line}");
    }
    ensure!(denied.get(&format!("{}:7", mesh.server.ip()), "/").is_err(), "denied from now on");
    let refused = eventually(SOON, "the refusal is told", || {
        mesh.far_ztunnel.caused("POLICY_DENIED").pop().ok_or("no line")
    })?;
    let why = refused["error"].as_str().unwrap_or_default();
    ensure!(why.ends_with("explicitly denied by: default/no-denied"), "which policy: {refused}");
    ensure!(refused["src.identity"] == denied.identity(), "who was denied: {refused}");
    Ok(())
}
