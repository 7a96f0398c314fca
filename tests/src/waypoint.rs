//! The product's waypoint in a pod of a cluster.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::eventually::eventually;
use crate::pod::{Pod, PodSpec};
use crate::process::{Program, Running};
use crate::proxies::Authority;

/// Long enough for a process to start on a loaded machine.
const START: Duration = Duration::from_secs(20);

/// A running `waypoint run`.
#[derive(Debug)]
pub struct Waypoint {
    running: Running,
}

impl Waypoint {
    /// The pod of an instance of the Gateway `name` in `namespace`.
    pub fn pod(instance: &str, namespace: &str, name: &str) -> PodSpec {
        PodSpec::new(instance)
            .namespace(namespace)
            .service_account(name)
            .label("gateway.networking.k8s.io/gateway-name", name)
            .outside()
    }

    /// The Gateway `name` in `namespace` and its service.
    #[must_use]
    pub fn gateway(namespace: &str, name: &str, address: &str) -> String {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  name: {name}\n  \
             namespace: {namespace}\nspec:\n  \
             gatewayClassName: istio-waypoint\n  listeners:\n  - name: mesh\n    port: 15008\n    \
             protocol: HBONE\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  \
             namespace: {namespace}\n  labels:\n    gateway.networking.k8s.io/gateway-name: {name}\n\
             spec:\n  clusterIP: {address}\n  selector:\n    \
             gateway.networking.k8s.io/gateway-name: {name}\n  ports:\n  - name: mesh\n    \
             port: 15008\n    targetPort: 15008\n"
        )
    }

    /// Starts an instance in `pod`; does not wait for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(cluster: &Cluster, pod: &Pod, authority: &Authority) -> anyhow::Result<Self> {
        Self::run(Self::program(cluster, pod, authority)?)
    }

    /// What `start` starts, to be given more arguments or variables.
    ///
    /// # Errors
    /// There is no join token to be had.
    pub fn program(cluster: &Cluster, pod: &Pod, authority: &Authority) -> anyhow::Result<Program> {
        let gateway = Self::gateway_of(pod);
        let token = cluster.dir().join(format!("{}.token", gateway.replace('/', "-")));
        if !token.exists() {
            std::fs::rename(authority.token(&gateway)?, &token)?;
        }
        let program = Self::without_certificates(cluster, pod);
        Ok(program.args(["--ca", &authority.address()]).arg("--join-token").arg(token))
    }

    /// As `program`, with certificates from wherever the caller says.
    pub fn without_certificates(cluster: &Cluster, pod: &Pod) -> Program {
        pod.role("waypoint")
            .args(["run", "--gateway", &Self::gateway_of(pod), "--mesh"])
            .arg(cluster.mesh().path())
            .arg("--state")
            .arg(cluster.dir().join(format!("{}.state", pod.name())))
            .env("POD_NAME", pod.name())
            .env("LOG_FORMAT", "json")
    }

    fn gateway_of(pod: &Pod) -> String {
        let spec = pod.spec();
        format!("{}/{}", spec.namespace_name(), spec.account())
    }

    /// The process alone, for whoever watches it and nothing more.
    #[must_use]
    pub fn into_process(self) -> Running {
        self.running
    }

    /// Starts `program`, made by `program` and completed by the caller.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(program: Program) -> anyhow::Result<Self> {
        Ok(Self { running: program.start()? })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// It ended, or is not ready in time; with what it printed.
    pub fn ready(&self, pod: &Pod) -> anyhow::Result<()> {
        let ready = || -> anyhow::Result<()> {
            let (status, body) = pod.get("127.0.0.1:15021", "/healthz/ready")?;
            anyhow::ensure!(status == 200, "{}", body.trim_end());
            anyhow::ensure!(self.running.stdout().contains("\"ready\""), "no word of it");
            Ok(())
        };
        eventually(START, "waypoint is ready", ready)
            .with_context(|| format!("{}{}", self.running.stdout(), self.running.stderr()))
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

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
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
}
