//! The restart: a second ztunnel starts beside the first, takes over, and the first one drains.

use std::time::Duration;

use harness::eventually::pause;
use harness::proxies::Ztunnel;
use harness::role::{load, tick};
use rustix::process::Signal;

use crate::say;
use crate::scene::{SHOP_PORT, SOON, Scene, TICK_PORT};

/// How long the old process may finish its connections.
pub(crate) const DRAIN_SECONDS: u64 = 5;

/// What happened to whom.
pub(crate) struct Restart {
    /// Requests on new connections all the while.
    pub(crate) load: load::Report,
    /// A connection opened before, and used through the restart.
    pub(crate) open: tick::Report,
    /// How long the open connection was used in the old process after it was told to end.
    pub(crate) open_for: Option<Duration>,
    /// Whether the old process says in its log that it cut that connection.
    pub(crate) told_drained: bool,
    /// A connection opened once the new process was ready.
    pub(crate) later: tick::Report,
}

pub(crate) fn run(scene: &mut Scene) -> anyhow::Result<Restart> {
    say("\nRestarting the ztunnel of node-b under traffic");
    let ticking = |name: &str| -> anyhow::Result<_> {
        let target = format!("{}:{TICK_PORT}", scene.ledger.ip());
        let mut tick = scene.client.role("tick").args(["--target", &target]).start()?;
        tick.line_with("connected", SOON)?;
        say(&format!("  {name}: client → ledger, 100 exchanges a second"));
        Ok(tick)
    };
    let open = ticking("a long-lived connection is open")?;
    let load = scene
        .client
        .role("load")
        .args(["--target", &format!("shop:{SHOP_PORT}"), "--rate", "100", "--fresh"])
        .start()?;
    let node = &scene.node_b;
    let mut second = Ztunnel::start(&scene.cluster, node, &scene.authority)?;
    let took = second.ready()?;
    say(&format!("  second ztunnel beside the first: ready after {} ms", took.as_millis()));
    let told_ms = harness::role::now_ms();
    scene.ztunnel_b.process().signal(Signal::TERM)?;
    say("  the first one was told to end: its listeners are closed, its connections go on");
    let later = ticking("a second long-lived connection, through the new process")?;
    scene.ztunnel_b.process().wait(Duration::from_secs(DRAIN_SECONDS) + SOON)?;
    say("  the first one has ended");
    pause(Duration::from_millis(500));
    let open: tick::Report = open.finish(SOON)?;
    let open_for =
        open.broken.as_ref().map(|(_, at_ms)| Duration::from_millis(at_ms.saturating_sub(told_ms)));
    let told_drained = !scene.ztunnel_b.caused("DRAINED").is_empty();
    scene.ztunnel_b = second;
    let (load, later) = (load.finish(SOON)?, later.finish(SOON)?);
    Ok(Restart { load, open, open_for, told_drained, later })
}
