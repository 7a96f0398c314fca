//! Many connections, at once and one after the other, and what is left of them: nothing.

use std::time::Duration;

use anyhow::ensure;
use harness::eventually::eventually;
use harness::proxies::Ztunnel;
use harness::role::{hold, load};

use super::mesh::Mesh;
use super::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("many::five_thousand_connections_leave_nothing", &[], five_thousand_connections),
    ("many::twenty_thousand_in_a_row_leave_nothing", &[], twenty_thousand_in_a_row),
];

const LONG: Duration = Duration::from_secs(600);

/// Unused tunnels go soon, and no worker joins under load to stay: nothing at all need be left.
const SPARING: [(&str, &str); 2] =
    [("POOL_UNUSED_RELEASE_TIMEOUT", "2s"), ("ZTUNNEL_WORKER_THREADS", "1")];

/// What a proxy holds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Held {
    descriptors: usize,
    tasks: f64,
    sockets: f64,
}

impl Held {
    fn now(ztunnel: &mut Ztunnel) -> anyhow::Result<Self> {
        Ok(Self {
            descriptors: ztunnel.process().descriptors()?,
            tasks: ztunnel.metric("tokio_num_alive_tasks")?,
            sockets: ztunnel.metric("istio_tcp_sockets_open")?,
        })
    }

    /// What both proxies hold before anything flows.
    fn by_both(mesh: &mut Mesh) -> anyhow::Result<[Self; 2]> {
        Ok([Self::now(&mut mesh.near_ztunnel)?, Self::now(&mut mesh.far_ztunnel)?])
    }
}

/// Both proxies hold again what they held before, and have told the end of each of `connections`.
fn nothing_is_left(mesh: &mut Mesh, before: [Held; 2], connections: f64) -> anyhow::Result<()> {
    let ztunnels = [&mut mesh.near_ztunnel, &mut mesh.far_ztunnel];
    for (ztunnel, before) in ztunnels.into_iter().zip(before) {
        eventually(Duration::from_secs(60), "everything is let go", || {
            let now = Held::now(ztunnel).map_err(|error| error.to_string())?;
            if now == before { Ok(()) } else { Err(format!("{now:?}, before {before:?}")) }
        })?;
        let opened = ztunnel.metric("istio_tcp_connections_opened_total")?;
        let closed = ztunnel.metric("istio_tcp_connections_closed_total")?;
        let failed = ztunnel.metric("istio_tcp_connections_failed_total")?;
        ensure!(
            (opened, closed, failed) == (connections, connections, 0.0),
            "{opened} opened, {closed} closed, {failed} failed"
        );
    }
    Ok(())
}

fn five_thousand_connections() -> anyhow::Result<()> {
    let mut mesh = Mesh::with("many", "1h", &SPARING)?;
    let _echo = mesh.serve("echo", 7)?;
    let target = format!("{}:7", mesh.server.ip());
    let before = Held::by_both(&mut mesh)?;
    let mut holding =
        mesh.client.role("hold").args(["--target", &target, "--connections", "5000"]).start()?;
    holding.line_with("holding", LONG)?;
    for during in Held::by_both(&mut mesh)? {
        ensure!(during.descriptors >= before[0].descriptors + 5000, "{during:?}");
        ensure!(during.sockets >= 5000.0, "{during:?}");
    }
    let report: hold::Report = holding.finish(LONG)?;
    ensure!(report.opened == 5000 && report.alive == 5000, "{report:?}");
    nothing_is_left(&mut mesh, before, 5000.0)
}

fn twenty_thousand_in_a_row() -> anyhow::Result<()> {
    let mut mesh = Mesh::with("row", "1h", &SPARING)?;
    let _http = mesh.serve("http", 80)?;
    let before = Held::by_both(&mut mesh)?;
    let report: load::Report = mesh
        .client
        .role("load")
        .args(["--target", "server:80", "--fresh", "--connections", "1", "--requests", "20000"])
        .start()?
        .result(LONG)?;
    ensure!(report.failed() == 0 && report.ok == 20_000, "{report:?}");
    nothing_is_left(&mut mesh, before, 20_000.0)
}
