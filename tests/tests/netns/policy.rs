//! Policies that change while connections are open.

use anyhow::{Context as _, ensure};
use harness::pod::PodSpec;
use harness::role::tick;

use super::mesh::{Mesh, SOON};
use super::suite::Case;

pub(crate) const CASES: &[Case] =
    &[("policy::a_policy_closes_what_it_denies_and_nothing_else", &[], a_policy_closes)];

/// Five times the bound of 100 ms.
const POLICY_DEADLINE_MS: u64 = 500;

fn a_policy_closes() -> anyhow::Result<()> {
    let mesh = Mesh::new("policy")?;
    let denied = mesh.cluster.pod(&mesh.near, PodSpec::new("denied"))?;
    let _echo = mesh.serve("echo", 7)?;
    let (stays, goes) = (mesh.tick(&mesh.client, 7)?, mesh.tick(&denied, 7)?);
    let changed_ms = harness::role::now_ms();
    mesh.cluster.mesh().policy(
        "no-denied",
        "server",
        "DENY",
        "  - from:\n    - source:\n        principals: [\"cluster.local/ns/default/sa/denied\"]\n",
    )?;
    let mut goes = goes;
    let goes: tick::Report = goes.result(SOON)?;
    let (why, at_ms) = goes.broken.context("the denied connection lives on")?;
    let took = at_ms.saturating_sub(changed_ms);
    // The directory is read after 100 ms of quiet; the bound counts from there.
    ensure!(took <= 100 + POLICY_DEADLINE_MS, "closed only after {took} ms: {why}");
    let stays: tick::Report = stays.finish(SOON)?;
    ensure!(stays.broken.is_none(), "a connection that nothing denies: {stays:?}");
    Ok(())
}
