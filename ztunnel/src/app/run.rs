//! From the first pod to the last connection.

use std::future::Future;
use std::time::Duration;

use shared::drain;
use shared::process::{self, Addresses, Told};
use tokio::time::Instant;

use super::build::Bound;
use super::dump::dump;

/// After the drain nothing should be left; workers get this long to notice.
const WORKERS_GRACE: Duration = Duration::from_secs(1);

impl Bound {
    /// Where the servers listen.
    pub fn addresses(&self) -> Addresses {
        self.servers.addresses()
    }

    /// Serves until SIGTERM, SIGINT or `/quitquitquit`, then drains. A second SIGINT ends the
    /// process at once.
    pub async fn run(self) {
        self.run_until(process::asked_to_end()).await;
    }

    /// Serves until `stop` ends or `/quitquitquit` is asked for, then drains: listeners close at
    /// once, connections get until the deadline.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        let Self { config, log, ready, registry, workers, feed, node, pods, renewal, servers } =
            self;
        let (trigger, watch) = drain::channel();
        let renewal = tokio::spawn(renewal);
        let dump = dump(&config, &node, &workers, &pods.status(), &feed);
        tokio::spawn(process::tell_readiness(ready.clone(), watch.clone()));
        tokio::spawn(process::give_back_regularly(ready.clone()));
        let mut quitting = servers.spawn(Told { dump, log, registry, ready }, &watch);
        tokio::spawn(pods.run(feed.local_pods(), watch.clone()));
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            node = config.node.as_deref().unwrap_or("-"),
            admin = %config.servers.admin,
            state = %config.process.state.display(),
            workers = config.process.workers,
            "started"
        );
        process::drain_after(stop, &mut quitting, &trigger, config.process.drain).await;
        drop(feed);
        renewal.abort();
        workers.shutdown(Instant::now() + WORKERS_GRACE);
    }
}
