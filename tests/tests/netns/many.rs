//! Many connections, at once and one after the other, and what is left of them.

use std::time::Duration;

use anyhow::ensure;
use harness::eventually::eventually;
use harness::role::hold;

use super::mesh::Mesh;
use super::suite::Case;

pub(crate) const CASES: &[Case] =
    &[("many::five_thousand_connections_leave_nothing", &[], five_thousand_connections)];

fn five_thousand_connections() -> anyhow::Result<()> {
    let mut mesh = Mesh::new("many")?;
    let _echo = mesh.serve("echo", 7)?;
    let target = format!("{}:7", mesh.server.ip());
    // One exchange first, so that tunnels and pools have their standing size.
    drop(mesh.tick(&mesh.client, 7)?);
    let before = mesh.near_ztunnel.process().descriptors()?;
    let mut holding =
        mesh.client.role("hold").args(["--target", &target, "--connections", "5000"]).start()?;
    holding.line_with("holding", Duration::from_secs(120))?;
    let during = mesh.near_ztunnel.process().descriptors()?;
    ensure!(during >= before + 5000, "{during} descriptors");
    let report: hold::Report = holding.finish(Duration::from_secs(120))?;
    ensure!(report.opened == 5000 && report.alive == 5000, "{report:?}");
    // Fifty tunnels of a hundred streams may stay pooled for five minutes.
    eventually(Duration::from_secs(60), "descriptors return", || {
        let now = mesh.near_ztunnel.process().descriptors().map_err(|error| error.to_string())?;
        if now <= before + 60 { Ok(()) } else { Err(format!("{now}, {before} before")) }
    })?;
    Ok(())
}
