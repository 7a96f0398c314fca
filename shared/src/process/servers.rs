//! The administrative servers of a process: bound before anything is served, and served until the end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use crate::admin::pages::{self, Dump};
use crate::admin::{Exposure, Listener, listen, serve};
use crate::config;
use crate::drain;
use crate::process::{Failure, Log, host};
use crate::ready::Ready;
use crate::telemetry::metrics::Registry;

/// The listeners of the administrative servers.
#[derive(Debug)]
pub struct Servers {
    admin: Listener,
    owner: Listener,
    stats: Listener,
    ready: Listener,
    wanted: config::Servers,
}

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

/// What the servers tell.
pub struct Told {
    /// The sections of `/config_dump`.
    pub dump: Dump,
    /// The log, whose levels can be changed.
    pub log: Log,
    /// The metrics.
    pub registry: Registry,
    /// Whether the process can serve.
    pub ready: Ready,
}

impl Servers {
    /// Binds them all; the directory `state` is made, private.
    ///
    /// # Errors
    /// [`Failure::Port`] and [`Failure::State`].
    pub fn bind(wanted: config::Servers, state: &Path) -> Result<Self, Failure> {
        let port = |address, purpose, flag| {
            listen::tcp(address).map_err(|source| Failure::Port { address, purpose, flag, source })
        };
        let unusable = |source| Failure::State { path: state.to_owned(), source };
        host::private_directory(state).map_err(unusable)?;
        Ok(Self {
            admin: port(wanted.admin, "administration", "--admin")?,
            stats: port(wanted.stats, "statistics", "--stats")?,
            ready: port(wanted.ready, "readiness", "--ready")?,
            // Last, because it takes the place of another process's.
            owner: listen::unix(&socket_path(state)).map_err(unusable)?,
            wanted,
        })
    }

    /// Where they listen.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            admin: self.admin.local_addr().unwrap_or(self.wanted.admin),
            stats: self.stats.local_addr().unwrap_or(self.wanted.stats),
            ready: self.ready.local_addr().unwrap_or(self.wanted.ready),
        }
    }

    /// Serves until the drain. What comes back says that `/quitquitquit` was asked for.
    pub fn spawn(self, told: Told, watch: &drain::Watch) -> mpsc::UnboundedReceiver<()> {
        let (quit, quitting) = mpsc::unbounded_channel();
        let pages = pages::admin(told.dump, told.log.levels, quit);
        for (listener, exposure, pages) in [
            (self.admin, Exposure::Loopback, pages.clone()),
            (self.owner, Exposure::Owner, pages),
            (self.stats, Exposure::Anyone, pages::statistics(told.registry)),
            (self.ready, Exposure::Anyone, pages::readiness(told.ready)),
        ] {
            tokio::spawn(serve(listener, exposure, pages, watch.clone()));
        }
        quitting
    }
}

/// Where the administrative socket is.
pub fn socket_path(state: &Path) -> PathBuf {
    state.join("admin.sock")
}
