//! A node with pods on loopback addresses of their own.

use std::cell::RefCell;
use std::future::Future;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shared::drain;
use shared::identity::test_util::TestCa;
use shared::identity::{Authority, CertStore, SpiffeId, TrustDomain};
use shared::mesh::{self, Change, NetworkAddr, Service, Workload, sample};
use shared::telemetry::metrics::Registry;
use shared::telemetry::{Format, Sink, access, logging, traffic};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use crate::node::{Config, Node, OnWorker};
use crate::pods::{Pod, PodName};
use crate::redirect::Sockets;
use crate::{inbound, outbound};

/// Runs a flow on a worker of its own; no flow takes longer than this.
pub(super) async fn run(flow: impl Future<Output = ()>) {
    let worker = LocalSet::new();
    let limited = tokio::time::timeout(Duration::from_secs(20), worker.run_until(flow));
    limited.await.expect("the flow ends in time");
}

/// One node, its mesh, and what it logs.
pub(super) struct World {
    pub(super) part: Rc<OnWorker>,
    pub(super) registry: Registry,
    writer: RefCell<mesh::Writer>,
    log: Lines,
    sink: Sink,
    network: [u8; 2],
    triggers: RefCell<Vec<drain::Trigger>>,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A served pod.
#[derive(Clone)]
pub(super) struct TestPod {
    pub(super) pod: Arc<Pod>,
    pub(super) ip: IpAddr,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(super) fn with(config: Config) -> Self {
        Self::certified(config, |ca| ca)
    }

    /// `authority` gives out the node's certificates.
    pub(super) fn certified<A: Authority>(
        config: Config,
        authority: impl FnOnce(Arc<TestCa>) -> Arc<A>,
    ) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let sink = Sink::start(std::io::sink()).unwrap();
        logging::start("info", Format::Plain, sink).unwrap();
        let log = Lines::default();
        let sink = Sink::start(log.clone()).unwrap();
        let ca = Arc::new(TestCa::new(&TrustDomain::default()));
        let (certificates, keep) =
            CertStore::new(authority(ca), shared::identity::Config::default());
        spawn_local(keep);
        let (writer, reader) = mesh::writer();
        let registry = Registry::default();
        let node = Arc::new(Node {
            config: Config { keep_source: false, ..config },
            mesh: reader,
            certificates,
            traffic: traffic::Traffic::new(&registry).unwrap(),
            access: access::Log::new(sink.clone(), Format::Plain),
        });
        let process = (std::process::id() % 200) as u8 + 20;
        let network = [process, NEXT.fetch_add(1, Ordering::Relaxed) as u8];
        Self {
            part: node.on_worker(),
            registry,
            writer: RefCell::new(writer),
            log,
            sink,
            network,
            triggers: RefCell::default(),
        }
    }

    pub(super) fn ip(&self, host: u8) -> IpAddr {
        let [second, third] = self.network;
        Ipv4Addr::new(127, second, third, host).into()
    }

    pub(super) fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        self.writer.borrow_mut().apply(changes);
    }

    /// A pod that is not in the mesh yet.
    pub(super) fn pod(&self, name: &str, host: u8) -> TestPod {
        let (trigger, watch) = drain::channel();
        self.triggers.borrow_mut().push(trigger);
        let workload =
            PodName { namespace: "team".into(), name: name.into(), service_account: name.into() };
        let identity = SpiffeId::new(TrustDomain::default(), "team", name).unwrap();
        let uid = sample::workload(name, "team").uid;
        let (ip, sockets) = (self.ip(host), Sockets::here(None));
        let ips = vec![ip];
        TestPod { pod: Arc::new(Pod { uid, workload, identity, ips, sockets, drain: watch }), ip }
    }

    /// A pod in the mesh, whose tunnel listener is served.
    pub(super) async fn served(&self, name: &str, host: u8) -> TestPod {
        let pod = self.pod(name, host);
        self.apply([pod.workload().into()]);
        self.listen(&pod).await;
        pod
    }

    /// Serves the tunnel listener of `pod`.
    pub(super) async fn listen(&self, pod: &TestPod) -> JoinHandle<()> {
        let listener = TcpListener::bind((pod.ip, 15008)).await.unwrap();
        let (part, pod) = (Rc::clone(&self.part), Arc::clone(&pod.pod));
        spawn_local(async move {
            while let Ok((socket, peer)) = listener.accept().await {
                let (part, pod) = (Rc::clone(&part), Arc::clone(&pod));
                spawn_local(inbound::serve_tunnel(part, pod, socket, peer));
            }
        })
    }

    /// What the application of `pod` sees when it connects to `to`.
    pub(super) async fn connect(&self, pod: &TestPod, to: SocketAddr) -> TcpStream {
        let (client, captured, peer) = captured().await;
        let (part, pod) = (Rc::clone(&self.part), Arc::clone(&pod.pod));
        spawn_local(async move { outbound::carry(&part, &pod, captured, (peer, to)).await });
        client
    }

    /// What a program outside the mesh sees when it connects to the application of `pod` at `to`.
    pub(super) async fn connect_plainly(&self, pod: &TestPod, to: SocketAddr) -> TcpStream {
        let (client, captured, peer) = captured().await;
        let (part, pod) = (Rc::clone(&self.part), Arc::clone(&pod.pod));
        spawn_local(
            async move { inbound::deliver_plaintext(&part, &pod, captured, (peer, to)).await },
        );
        client
    }

    /// Forces all pods to end.
    pub(super) async fn force(&self) {
        for trigger in self.triggers.take() {
            assert_eq!(trigger.force().await, drain::Outcome::Graceful, "no guards here");
        }
    }

    /// The log so far.
    pub(super) fn log(&self) -> String {
        self.sink.flush(Duration::from_secs(1));
        String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap()
    }

    /// Waits until a line of the log contains all of `fragments`, and returns it.
    pub(super) async fn line(&self, fragments: &[&str]) -> String {
        loop {
            let log = self.log();
            let found = log.lines().find(|line| fragments.iter().all(|part| line.contains(part)));
            match found {
                Some(line) => return line.to_owned(),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Waits until a connection has failed with `cause`.
    pub(super) async fn caused(&self, cause: &str) -> String {
        self.line(&[&format!("cause=\"{cause}\"")]).await
    }
}

impl TestPod {
    pub(super) fn workload(&self) -> Workload {
        Workload {
            addresses: [self.ip].into(),
            identity: self.pod.identity.clone(),
            ..sample::workload(&self.pod.workload.name, "team")
        }
    }

    /// Its workload as an endpoint of service `name`.
    pub(super) fn behind(&self, name: &str, ports: &[(u16, u16)]) -> Workload {
        let services = [(sample::service_key(name, "team"), ports.into())].into();
        Workload { services, ..self.workload() }
    }

    /// An application of the pod; its port.
    pub(super) async fn application(&self) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((self.ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An application that sends back what it gets.
    pub(super) async fn echo(&self) -> SocketAddr {
        let (listener, address) = self.application().await;
        spawn_local(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                spawn_local(async move {
                    let (mut read, mut write) = socket.split();
                    // The peer may hang up; tests look at its end.
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }
}

/// A service of namespace `team` at `vip`, port 80, whose endpoints say their own ports.
pub(super) fn service(name: &str, vip: IpAddr) -> Service {
    let vip = NetworkAddr { network: "".into(), address: vip };
    let port = mesh::ServicePort {
        port: 80,
        target_port: None,
        app_protocol: mesh::AppProtocol::Unknown,
        name: "".into(),
    };
    Service { vips: [vip].into(), ports: [port].into(), ..sample::service(name, "team") }
}

/// A socket of a client and the captured end of it, with the client's address.
pub(super) async fn captured() -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(to), listener.accept());
    let (captured, peer) = accepted.unwrap();
    (client.unwrap(), captured, peer)
}
