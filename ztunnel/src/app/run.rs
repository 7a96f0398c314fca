//! From the first pod to the last connection.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use shared::admin::{Exposure, pages, serve};
use shared::drain::{self, Outcome};
use shared::ready::Ready;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::build::{Bound, Servers};
use super::dump::dump;

/// After the drain nothing should be left; workers get this long to notice.
const WORKERS_GRACE: Duration = Duration::from_secs(1);

/// Where the servers of a process really listen, when ports were left to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Administration.
    pub admin: SocketAddr,
    /// Statistics.
    pub stats: SocketAddr,
    /// Readiness.
    pub ready: SocketAddr,
}

impl Bound {
    /// Where the servers listen.
    pub fn addresses(&self) -> Addresses {
        let Servers { admin, stats, ready, .. } = &self.servers;
        let wanted = &self.config.servers;
        Addresses {
            admin: admin.local_addr().unwrap_or(wanted.admin),
            stats: stats.local_addr().unwrap_or(wanted.stats),
            ready: ready.local_addr().unwrap_or(wanted.ready),
        }
    }

    /// Serves until SIGTERM, SIGINT or `/quitquitquit`, then drains. A second SIGINT ends the
    /// process at once.
    pub async fn run(self) {
        let mut interrupt = listen_for(SignalKind::interrupt());
        let mut terminate = listen_for(SignalKind::terminate());
        let asked = async move {
            let name = tokio::select! {
                () = arrived(&mut terminate) => "SIGTERM",
                () = arrived(&mut interrupt) => "SIGINT",
            };
            tracing::info!(signal = name, "ending");
            tokio::spawn(async move {
                arrived(&mut interrupt).await;
                tracing::warn!("second SIGINT, ending at once");
                std::process::exit(0);
            });
        };
        self.run_until(asked).await;
    }

    /// Serves until `stop` ends or `/quitquitquit` is asked for, then drains: listeners close at
    /// once, connections get until the deadline.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        let Self { config, log, ready, registry, workers, feed, node, pods, renewal, servers } =
            self;
        let (trigger, watch) = drain::channel();
        let (quit, mut quitting) = mpsc::unbounded_channel();
        let renewal = tokio::spawn(renewal);
        let pages = pages::admin(
            dump(&config, &node, &workers, &pods.status(), &feed),
            log.levels.clone(),
            quit,
        );
        tokio::spawn(tell_readiness(ready.clone(), watch.clone()));
        for (listener, exposure, pages) in [
            (servers.admin, Exposure::Loopback, pages.clone()),
            (servers.owner, Exposure::Owner, pages),
            (servers.stats, Exposure::Anyone, pages::statistics(registry)),
            (servers.ready, Exposure::Anyone, pages::readiness(ready)),
        ] {
            tokio::spawn(serve(listener, exposure, pages, watch.clone()));
        }
        tokio::spawn(pods.run(feed.local_pods(), watch.clone()));
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            node = config.node.as_deref().unwrap_or("-"),
            admin = %config.servers.admin,
            state = %config.process.state.display(),
            workers = config.process.workers,
            "started"
        );
        tokio::select! {
            () = stop => {}
            _ = quitting.recv() => tracing::info!("ending, asked by /quitquitquit"),
        }
        // Tasks that were spawned just now must hold their guards before the drain counts them.
        tokio::task::yield_now().await;
        let deadline = Instant::now() + config.process.drain;
        match trigger.start(deadline).await {
            Outcome::Graceful => tracing::info!("drained"),
            Outcome::Forced { open, stuck } => {
                tracing::warn!(open, stuck, deadline = ?config.process.drain, "drained by force");
            }
        }
        drop(feed);
        renewal.abort();
        workers.shutdown(Instant::now() + WORKERS_GRACE);
    }
}

/// Writes `ready` to the log, and later what changes about it, until the drain begins.
async fn tell_readiness(ready: Ready, drain: drain::Watch) {
    const STARTING: Duration = Duration::from_millis(20);
    const RUNNING: Duration = Duration::from_secs(1);
    let mut was_ready = None;
    let tell = async {
        loop {
            let pending = ready.pending();
            if pending.is_empty() && was_ready != Some(true) {
                was_ready = Some(true);
                tracing::info!("ready");
            } else if !pending.is_empty() && was_ready == Some(true) {
                was_ready = Some(false);
                tracing::warn!(pending = pending.join(", "), "not ready any more");
            }
            tokio::time::sleep(was_ready.map_or(STARTING, |_| RUNNING)).await;
        }
    };
    tokio::select! {
        () = tell => {}
        () = drain.draining() => {}
    }
}

/// `None` when the system has no signal to give; then only the other ways to end remain.
fn listen_for(kind: SignalKind) -> Option<Signal> {
    signal(kind).inspect_err(|error| tracing::error!(%error, "cannot listen for signals")).ok()
}

async fn arrived(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
