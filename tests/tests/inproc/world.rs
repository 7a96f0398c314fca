//! Two nodes with pods. The proxy of the near one runs inside the test's process, on threads that
//! sit in the node's network namespace; the far one has none, so a test can stand in for it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use harness::cluster::{Cluster, Node};
use harness::eventually::eventually;
use harness::netns::NetNs;
use harness::pod::{Pod, PodSpec};
use shared::config::Given;
use shared::identity::test_util::{PemPair, TestCa};
use shared::identity::{SpiffeId, TrustDomain};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use ztunnel::app::{self, build};
use ztunnel::config::Config;

use super::log::{Log, SOON};

/// The readiness port of the proxy, seen from its node.
const READY: &str = "127.0.0.1:15021";

/// The nodes, and the authority behind the certificates of their pods.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) near: Arc<Node>,
    pub(crate) far: Arc<Node>,
    pub(crate) ca: TestCa,
    pub(crate) log: Log,
    certs: PathBuf,
}

impl World {
    pub(crate) fn new(log: &Log) -> anyhow::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let cluster = Cluster::new(&format!("world-{}", MADE.fetch_add(1, Ordering::Relaxed)))?;
        let (near, far) = (cluster.node("near")?, cluster.node("far")?);
        let ca = TestCa::new(&TrustDomain::default());
        let certs = cluster.dir().join("certs");
        fs::create_dir_all(&certs)?;
        fs::write(certs.join("root-cert.pem"), ca.root_pem())?;
        Ok(Self { cluster, near, far, ca, log: log.clone(), certs })
    }

    /// A pod of the near node, in the mesh and with a certificate.
    pub(crate) fn pod(&self, spec: PodSpec) -> anyhow::Result<Pod> {
        let pod = self.cluster.pod(&self.near, spec.unannounced())?;
        let id = identity(&pod)?;
        self.certify(&id, &self.ca.issue_pem(&id))?;
        self.announce(&pod)?;
        Ok(pod)
    }

    /// A pod of the near node, in the mesh and without a certificate.
    pub(crate) fn uncertified(&self, spec: PodSpec) -> anyhow::Result<Pod> {
        self.cluster.pod(&self.near, spec)
    }

    /// A pod of the far node. Whatever it does about tunnels, the test does.
    pub(crate) fn far_pod(&self, spec: PodSpec) -> anyhow::Result<Pod> {
        self.cluster.pod(&self.far, spec)
    }

    /// Writes the pod into the mesh directory.
    pub(crate) fn announce(&self, pod: &Pod) -> io::Result<()> {
        self.cluster.mesh().write(&pod.file(), &pod.yaml())
    }

    /// Puts a certificate where the proxy looks for that of `id`.
    pub(crate) fn certify(&self, id: &SpiffeId, pair: &PemPair) -> io::Result<()> {
        let account = format!("ns/{}/sa/{}", id.namespace(), id.service_account());
        let home = self.certs.join(account);
        fs::create_dir_all(&home)?;
        fs::write(home.join("key.pem"), &pair.key)?;
        fs::set_permissions(home.join("key.pem"), fs::Permissions::from_mode(0o600))?;
        fs::write(home.join("cert-chain.pem"), &pair.chain)
    }

    /// Starts the proxy of the near node with these variables. Connections have one second to end,
    /// unless these say more.
    pub(crate) fn start(&self, variables: &[(&str, &str)]) -> anyhow::Result<Proxy> {
        let state = self.cluster.dir().join("state");
        let config = self.config(&state, variables)?;
        Proxy::start(config, &self.log, Arc::clone(&self.near))
    }

    fn config(&self, state: &Path, variables: &[(&str, &str)]) -> anyhow::Result<Config> {
        let text = |path: &Path| path.display().to_string();
        let flags = BTreeMap::from([
            ("node", "near".to_owned()),
            ("mesh", text(self.cluster.mesh().path())),
            ("certs", text(&self.certs)),
            ("state", text(state)),
        ]);
        let mut environment =
            BTreeMap::from([("CONNECTION_TERMINATION_DEADLINE".to_owned(), "1s".to_owned())]);
        let own = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        environment.extend(own);
        Config::parse(&Given::new(flags, &environment))
            .map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))
    }
}

/// Who `pod` is.
pub(crate) fn identity(pod: &Pod) -> anyhow::Result<SpiffeId> {
    Ok(pod.identity().parse()?)
}

/// A proxy that serves until it is dropped.
pub(crate) struct Proxy {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
    node: Arc<Node>,
}

impl Proxy {
    fn start(config: Config, log: &Log, node: Arc<Node>) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let log = app::Log::to(log.sink());
        let place = Arc::clone(&node);
        let serve = move || -> anyhow::Result<()> {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build()?.block_on(async {
                let bound = build(config, log)?;
                bound.run_until(async { drop(stopped.await) }).await;
                Ok(())
            })
        };
        let inside = move || place.netns().run(|| serve().map_err(io::Error::other));
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(inside)?;
        Ok(Self { stop: Some(stop), thread: Some(thread), node })
    }

    /// Waits until it is ready.
    pub(crate) fn ready(&self) -> anyhow::Result<()> {
        eventually(SOON, "the proxy is ready", || self.is_ready())
    }

    /// Fails unless it is ready now.
    pub(crate) fn is_ready(&self) -> anyhow::Result<()> {
        let (status, body) = self.node.get(READY, "/healthz/ready").context("readiness")?;
        anyhow::ensure!(status == 200, "{}", body.trim_end());
        Ok(())
    }

    /// Begins its end, which takes as long as its connections, or until the deadline.
    pub(crate) fn begin_to_end(&mut self) {
        if let Some(stop) = self.stop.take() {
            // One that has failed hears nothing; `end` tells why.
            let _ = stop.send(());
        }
    }

    /// Ends it, and gives the reason if it could not start.
    pub(crate) fn end(&mut self) -> anyhow::Result<()> {
        self.begin_to_end();
        let Some(thread) = self.thread.take() else { return Ok(()) };
        Ok(thread.join().map_err(|_| anyhow::anyhow!("the proxy panicked"))??)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("proxy: {error:#}");
        }
    }
}

/// A connection that a program of `pod` makes.
pub(crate) async fn connect(pod: &Pod, to: SocketAddr) -> io::Result<TcpStream> {
    dial(pod.netns(), to).await
}

/// A connection that a program in `place` makes.
pub(crate) async fn dial(place: &NetNs, to: SocketAddr) -> io::Result<TcpStream> {
    let make = || if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    place.run(make)?.connect(to).await
}

/// A listener of a program in `pod`, at every address.
pub(crate) fn listen(pod: &Pod, port: u16) -> io::Result<TcpListener> {
    let listener = pod.netns().run(|| {
        let listener = std::net::TcpListener::bind(("::", port))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })?;
    TcpListener::from_std(listener)
}
