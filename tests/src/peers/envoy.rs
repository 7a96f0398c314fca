//! Envoy at one end of a tunnel, inside a pod whose node has no ztunnel.

use std::time::Duration;

use anyhow::Context as _;

use super::{CertDir, fill};
use crate::eventually::eventually;
use crate::pod::Pod;
use crate::process::Running;

/// The program, as `enter::find` looks for it.
const PROGRAM: &str = "envoy";
/// A hundred megabytes of program, on a loaded machine.
const START: Duration = Duration::from_secs(40);
const ADMIN: &str = "127.0.0.1:9901";

/// A pod and the Envoy in it.
#[derive(Debug)]
pub struct Envoy {
    pod: Pod,
    running: Running,
}

impl Envoy {
    /// Where the client's end takes plain connections, from within its pod.
    pub const PLAIN: &str = "127.0.0.1:7000";

    /// Starts the client's end in `pod`: connections to `PLAIN` go through a tunnel to `port` of
    /// `server`.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn client(pod: Pod, certs: &CertDir, server: &Pod, port: u16) -> anyhow::Result<Self> {
        let files = certs.add(&pod)?;
        let gaps = [
            ("destination", &*format!("{}:{port}", server.ip())),
            ("peer", &server.ip().to_string()),
            ("peer-identity", &server.identity()),
            ("chain", &files.chain.display().to_string()),
            ("key", &files.key.display().to_string()),
            ("root", &files.root.display().to_string()),
        ];
        let template = include_str!("../../peers/envoy-client.yaml");
        let config = fill(&pod, "envoy-client.yaml", template, &gaps)?;
        Self::start(pod, &config)
    }

    fn start(pod: Pod, config: &std::path::Path) -> anyhow::Result<Self> {
        let running = pod
            .program(PROGRAM)
            // Several of them on one machine, and nothing to take over from.
            .args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"])
            .arg("--config-path")
            .arg(config)
            .start()?;
        let mut envoy = Self { pod, running };
        eventually(START, "Envoy is ready", || {
            if !envoy.running.is_running().unwrap_or(true) {
                return Ok(false);
            }
            match envoy.pod.get(ADMIN, "/ready") {
                Ok((200, _)) => Ok(true),
                other => Err(format!("{other:?}")),
            }
        })
        .and_then(|lives| lives.then_some(()).context("Envoy ended"))
        .with_context(|| envoy.running.stderr())?;
        Ok(envoy)
    }

    /// Its pod.
    #[must_use]
    pub fn pod(&self) -> &Pod {
        &self.pod
    }
}
