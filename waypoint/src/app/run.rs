//! From the first tunnel to the last request.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shared::drain;
use shared::process::{self, Addresses, Told};
use tokio::time::Instant;

use super::build::Bound;
use super::dump::dump;
use crate::node::Node;
use crate::tunnel;
use crate::upstream::keep_resolving;

/// After the drain nothing should be left; workers get this long to notice.
const WORKERS_GRACE: Duration = Duration::from_secs(1);

impl Bound {
    /// Where the servers listen.
    pub fn addresses(&self) -> Addresses {
        self.servers.addresses()
    }

    /// Where tunnels are accepted.
    pub fn tunnels(&self) -> SocketAddr {
        self.listener.local_addr().unwrap_or(self.config.listen)
    }

    /// Serves until SIGTERM, SIGINT or `/quitquitquit`, then drains. A second SIGINT ends the
    /// process at once.
    pub async fn run(self) {
        self.run_until(process::asked_to_end()).await;
    }

    /// Serves until `stop` ends or `/quitquitquit` is asked for, then drains: nothing new is
    /// accepted, requests get until the deadline.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        let tunnels = self.tunnels();
        let Self { config, log, ready, registry, workers, feed, node, .. } = self;
        let Self { listener, renewal, servers, names, .. } = self;
        let (trigger, watch) = drain::channel();
        let renewal = tokio::spawn(renewal);
        let dump = dump(&config, &node, &feed);
        tokio::spawn(process::tell_readiness(ready.clone(), watch.clone()));
        tokio::spawn(process::give_back_regularly(ready.clone()));
        let mut quitting = servers.spawn(Told { dump, log, registry, ready }, &watch);
        tokio::spawn(fetch_certificate(Arc::clone(&node)));
        tokio::spawn(keep_resolving(node.mesh.clone(), names));
        tokio::spawn(tunnel::accept(node, workers.clone(), listener, watch.clone()));
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            gateway = %format_args!("{}/{}", config.gateway.namespace, config.gateway.name),
            tunnels = %tunnels,
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

/// Asks for our certificate ahead of traffic, as soon as the mesh says who we are.
async fn fetch_certificate(node: Arc<Node>) {
    let mut changed = node.mesh.changed();
    let mut asked = None;
    loop {
        changed.borrow_and_update();
        let own = node.own(&node.mesh.load()).map(|own| own.identity.clone());
        if own != asked {
            if let Some(identity) = &own {
                node.certificates.prefetch(identity);
            }
            if let Some(before) = asked {
                node.certificates.forget(&before);
            }
            asked = own;
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}
