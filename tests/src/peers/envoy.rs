//! Envoy at one end of a tunnel, in a pod whose node has no ztunnel.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::{CertDir, Template, fill};
use crate::cluster::ask;
use crate::eventually::eventually;
use crate::pod::Pod;
use crate::process::Running;

/// A hundred megabytes of program, on a loaded machine.
const START: Duration = Duration::from_secs(40);
const ADMIN: &str = "127.0.0.1:9901";

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy<'a> {
    pod: &'a Pod,
    running: Running,
}

impl<'a> Envoy<'a> {
    /// Where the client's end takes plain connections, from within its pod.
    pub const PLAIN: &'static str = "127.0.0.1:7000";

    /// Where the HTTP proxy listens, within its pod.
    pub const HTTP: &'static str = "127.0.0.1:7100";

    /// Where the application of the HTTP proxy is, within its pod.
    pub const APPLICATION: &'static str = "127.0.0.1:7200";

    /// Where a relay's streams are ended, within its pod.
    pub const EXIT: &'static str = "127.0.0.1:9000";

    /// Starts the client's end in `pod`: connections to `PLAIN` go through a tunnel to `port` of
    /// `server`.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn client(pod: &'a Pod, certs: &CertDir, server: &Pod, port: u16) -> anyhow::Result<Self> {
        Self::client_of(pod, certs, server, &format!("{}:{port}", server.ip()))
    }

    /// The same, for whatever `destination` is to `peer`, who ends the tunnel.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn client_of(
        pod: &'a Pod,
        certs: &CertDir,
        peer: &Pod,
        destination: &str,
    ) -> anyhow::Result<Self> {
        let address = peer.ip().to_string();
        let gaps = [("destination", destination), ("peer", &address)];
        let text = include_str!("../../peers/envoy-client.yaml");
        let template = Template { file: "envoy-client.yaml", text };
        Self::start(pod, certs, peer, &template, &gaps)
    }

    /// Starts an HTTP proxy in `pod`, in front of `APPLICATION`.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn http(pod: &'a Pod) -> anyhow::Result<Self> {
        let logs = &pod.place().logs;
        fs::create_dir_all(logs)?;
        let path = logs.join("envoy-http.yaml");
        fs::write(&path, include_str!("../../peers/envoy-http.yaml"))?;
        Self::run(pod, &path)
    }

    /// Starts the server's end in `pod`, for tunnels from `client`.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn server(pod: &'a Pod, certs: &CertDir, client: &Pod) -> anyhow::Result<Self> {
        let address = pod.ip().to_string();
        let text = include_str!("../../peers/envoy-server.yaml");
        let template = Template { file: "envoy-server.yaml", text };
        Self::start(pod, certs, client, &template, &[("address", &address)])
    }

    /// As `server`, but the streams are ended by the role `exit` at `EXIT`, within the pod.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn relay(pod: &'a Pod, certs: &CertDir, client: &Pod) -> anyhow::Result<Self> {
        let address = pod.ip().to_string();
        let text = include_str!("../../peers/envoy-relay.yaml");
        let template = Template { file: "envoy-relay.yaml", text };
        Self::start(pod, certs, client, &template, &[("address", &address)])
    }

    fn start(
        pod: &'a Pod,
        certs: &CertDir,
        peer: &Pod,
        template: &Template,
        gaps: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let identity = peer.identity();
        let gaps = [gaps, &[("peer-identity", &*identity)]].concat();
        Self::run(pod, &fill(pod, template, &certs.add(pod)?, &gaps)?)
    }

    fn run(pod: &'a Pod, config: &Path) -> anyhow::Result<Self> {
        let running = run(pod, config)?;
        let mut envoy = Self { pod, running };
        envoy.wait().with_context(|| envoy.running.stderr())?;
        Ok(envoy)
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let lives = eventually(START, "Envoy is ready", || {
            if !self.running.is_running().unwrap_or(true) {
                return Ok(false);
            }
            match self.pod.get(ADMIN, "/ready") {
                Ok((200, _)) => Ok(true),
                other => Err(format!("{other:?}")),
            }
        })?;
        lives.then_some(()).context("Envoy ended")
    }

    /// Tells its admin port to do something.
    ///
    /// # Errors
    /// It does not answer with 200.
    pub fn order(&self, path: &str) -> anyhow::Result<()> {
        let (status, body) = ask(self.pod.netns(), "POST", ADMIN, path)?;
        anyhow::ensure!(status == 200, "Envoy answers {status} to {path}: {body}");
        Ok(())
    }

    /// The value of a counter or gauge.
    ///
    /// # Errors
    /// It does not answer, or has none of that name.
    pub fn stat(&self, name: &str) -> anyhow::Result<u64> {
        let (_, body) = self.pod.get(ADMIN, &format!("/stats?filter=^{name}$"))?;
        let value = body.trim().strip_prefix(name).and_then(|rest| rest.strip_prefix(": "));
        value.and_then(|value| value.parse().ok()).with_context(|| format!("{name}: {body:?}"))
    }
}

fn run(pod: &Pod, config: &Path) -> anyhow::Result<Running> {
    pod.program("envoy")
        // Several of them on one machine, and none takes over from another.
        .args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"])
        // A drain concerns every connection at once, not more and more of them in ten minutes.
        .args(["--drain-strategy", "immediate"])
        .arg("--config-path")
        .arg(config)
        .start()
}
