//! The product's own processes in a cluster: the certificate authority, and a ztunnel per node.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::Signal;

use crate::cluster::{Cluster, Node};
use crate::eventually::eventually;
use crate::peers::CertDir;
use crate::pod::Pod;
use crate::process::{Program, Running};

/// Long enough for a process to start on a loaded machine.
const START: Duration = Duration::from_secs(20);
const CA_PORT: u16 = 15012;

/// A running `ztunnel ca`.
#[derive(Debug)]
pub struct Authority {
    running: Running,
    node: Arc<Node>,
    state: PathBuf,
    leaf_ttl: String,
}

impl Authority {
    /// Starts it on `node` for the mesh directory of `cluster`.
    ///
    /// # Errors
    /// It does not listen in time.
    pub fn start(cluster: &Cluster, node: &Arc<Node>, leaf_ttl: &str) -> anyhow::Result<Self> {
        let state = cluster.dir().join("ca");
        let running = serve(cluster.mesh().path(), node, &state, leaf_ttl)?;
        let authority =
            Self { running, node: Arc::clone(node), state, leaf_ttl: leaf_ttl.to_owned() };
        authority.wait()?;
        Ok(authority)
    }

    /// Ends it, as a machine that goes down.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.running.signal(Signal::KILL)?;
        self.running.wait(START)?;
        Ok(())
    }

    /// Starts it again with the same root and tokens.
    ///
    /// # Errors
    /// It does not listen in time.
    pub fn revive(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        self.running = serve(cluster.mesh().path(), &self.node, &self.state, &self.leaf_ttl)?;
        self.wait()
    }

    /// A file with a new join token for `node`.
    ///
    /// # Errors
    /// The authority's state is not usable.
    pub fn token(&self, node: &str) -> anyhow::Result<PathBuf> {
        let token = self
            .node
            .role("ztunnel")
            .args(["ca", "token", node, "--state"])
            .arg(&self.state)
            .success(START)
            .context("making a join token")?;
        let file = self.state.with_file_name(format!("{}.token", node.replace('/', "-")));
        fs::write(&file, token)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        Ok(file)
    }

    /// Where it listens, as `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{CA_PORT}", self.node.ip())
    }

    fn wait(&self) -> anyhow::Result<()> {
        let address = std::net::SocketAddr::new(self.node.ip(), CA_PORT);
        eventually(START, "the authority listens", || {
            self.node.netns().run(|| {
                std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).map(drop)
            })
        })
        .with_context(|| self.running.stderr())
    }
}

fn serve(mesh: &Path, node: &Node, state: &Path, leaf_ttl: &str) -> anyhow::Result<Running> {
    node.role("ztunnel")
        .args(["ca", "--leaf-ttl", leaf_ttl, "--listen", &format!("0.0.0.0:{CA_PORT}"), "--mesh"])
        .arg(mesh)
        .arg("--state")
        .arg(state)
        .start()
}

/// A running `ztunnel run`.
#[derive(Debug)]
pub struct Ztunnel {
    running: Running,
    node: Arc<Node>,
    started: Instant,
}

impl Ztunnel {
    /// Starts one for `node`; does not wait for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        cluster: &Cluster,
        node: &Arc<Node>,
        authority: &Authority,
    ) -> anyhow::Result<Self> {
        Self::run(node, Self::program(cluster, node, authority)?)
    }

    /// What `start` starts, to be given more arguments or variables.
    ///
    /// # Errors
    /// There is no join token to be had.
    pub fn program(
        cluster: &Cluster,
        node: &Arc<Node>,
        authority: &Authority,
    ) -> anyhow::Result<Program> {
        let token = cluster.dir().join(format!("{}.token", node.name()));
        if !token.exists() {
            authority.token(node.name())?;
        }
        let program = Self::without_certificates(cluster, node);
        Ok(program.args(["--ca", &authority.address()]).arg("--join-token").arg(token))
    }

    /// As `program`, with certificates from a directory instead of an authority.
    pub fn with_files(cluster: &Cluster, node: &Node, certs: &CertDir) -> Program {
        Self::without_certificates(cluster, node).arg("--certs").arg(certs.path())
    }

    /// As `program`, with certificates from wherever the caller says.
    pub fn without_certificates(cluster: &Cluster, node: &Node) -> Program {
        node.role("ztunnel")
            .args(["run", "--node", node.name()])
            .arg("--mesh")
            .arg(cluster.mesh().path())
            .arg("--state")
            .arg(cluster.dir().join(format!("{}.state", node.name())))
            .env("LOG_FORMAT", "json")
    }

    /// Starts `program`, made by `program` and completed by the caller.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(node: &Arc<Node>, program: Program) -> anyhow::Result<Self> {
        let started = Instant::now();
        Ok(Self { running: program.start()?, node: Arc::clone(node), started })
    }

    /// Waits until it says that it is ready, and tells how long that took from its start.
    ///
    /// # Errors
    /// It ended, or is not ready in time; with what it printed.
    pub fn ready(&mut self) -> anyhow::Result<Duration> {
        let pid = self.running.pid();
        let ready = || -> anyhow::Result<()> {
            let (status, body) = self.node.get("127.0.0.1:15021", "/healthz/ready")?;
            anyhow::ensure!(status == 200, "{}", body.trim_end());
            // Two processes may share the port: this one has said so in its log.
            anyhow::ensure!(self.running.stdout().contains("\"ready\""), "no word of {pid}");
            Ok(())
        };
        eventually(START, "ztunnel is ready", ready)
            .with_context(|| format!("{}{}", self.running.stdout(), self.running.stderr()))?;
        Ok(self.started.elapsed())
    }

    /// Waits until it serves `pod`: from then on the pod's connections are captured. Those that it
    /// opened before are cut by that.
    ///
    /// # Errors
    /// It does not in time; with its log.
    pub fn serves(&self, pod: &Pod) -> anyhow::Result<()> {
        let name = format!("{}/{}", pod.spec().namespace, pod.name());
        let served = || {
            let told = |line: &serde_json::Value| {
                line["message"] == "pod is served" && line["pod"] == name
            };
            if self.log().iter().any(told) { Ok(()) } else { Err(self.running.stdout()) }
        };
        eventually(START, "the pod is served", served)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> std::io::Result<()> {
        self.running.signal(signal)
    }

    /// The process.
    pub fn process(&mut self) -> &mut Running {
        &mut self.running
    }

    /// The process alone, for whoever watches it and nothing more.
    #[must_use]
    pub fn into_process(self) -> Running {
        self.running
    }

    /// The file that takes its log.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        self.running.stdout_file()
    }

    /// Its log so far, line by line.
    #[must_use]
    pub fn log(&self) -> Vec<serde_json::Value> {
        let lines = self.running.stdout();
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The lines of its log that name this cause.
    #[must_use]
    pub fn caused(&self, cause: &str) -> Vec<serde_json::Value> {
        self.log().into_iter().filter(|line| line["cause"] == cause).collect()
    }

    /// Its metrics as text.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics(&self) -> anyhow::Result<String> {
        Ok(self.node.get("127.0.0.1:15020", "/metrics")?.1)
    }
    /// The sum of a metric over all its labels; 0 while it has no samples.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.metrics()?;
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}
