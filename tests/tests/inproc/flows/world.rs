//! A node with pods on loopback addresses of their own.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use anyhow::ensure;
use shared::drain;
use shared::identity::test_util::TestCa;
use shared::identity::{CertStore, SpiffeId, TrustDomain};
use shared::mesh::{self, Change, NetworkAddr, Service, Workload, sample};
use shared::telemetry::metrics::Registry;
use shared::telemetry::{Format, access, traffic};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use ztunnel::node::{Config, Node, OnWorker};
use ztunnel::pods::{Pod, PodName};
use ztunnel::redirect::Sockets;
use ztunnel::{inbound, outbound};

use crate::inproc::log::Log;
use crate::inproc::peer::TUNNEL;
use crate::inproc::scene;

/// One node and its mesh, all on the worker that the test runs on.
pub(super) struct World {
    pub(super) part: Rc<OnWorker>,
    pub(super) registry: Registry,
    pub(super) ca: Arc<TestCa>,
    writer: RefCell<mesh::Writer>,
    network: u8,
    triggers: RefCell<Vec<drain::Trigger>>,
    tunnels: Rc<Cell<usize>>,
}

/// A served pod.
#[derive(Clone)]
pub(super) struct TestPod {
    pub(super) pod: Arc<Pod>,
    pub(super) ip: IpAddr,
}

impl World {
    pub(super) fn new(log: &Log) -> anyhow::Result<Self> {
        Self::with(log, Config::default())
    }

    pub(super) fn with(log: &Log, config: Config) -> anyhow::Result<Self> {
        static MADE: AtomicU8 = AtomicU8::new(0);
        let ca = Arc::new(TestCa::new(&TrustDomain::default()));
        let authority: Arc<dyn shared::identity::Authority> = ca.clone();
        let (certificates, keep) = CertStore::new(authority, shared::identity::Config::default());
        spawn_local(keep);
        let (writer, reader) = mesh::writer();
        let registry = Registry::default();
        let node = Arc::new(Node {
            config: Config { keep_source: false, ..config },
            mesh: reader,
            certificates,
            traffic: traffic::Traffic::new(&registry)?,
            access: access::Log::new(log.sink(), Format::Plain),
            handover: None,
        });
        Ok(Self {
            part: node.on_worker(),
            registry,
            ca,
            writer: RefCell::new(writer),
            network: MADE.fetch_add(1, Ordering::Relaxed),
            triggers: RefCell::default(),
            tunnels: Rc::default(),
        })
    }

    /// Loopback has sixteen million addresses.
    pub(super) fn ip(&self, host: u8) -> IpAddr {
        Ipv4Addr::new(127, 20, self.network, host).into()
    }

    /// Tunnel connections that have been taken so far.
    pub(super) fn tunnels(&self) -> usize {
        self.tunnels.get()
    }

    pub(super) fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        self.writer.borrow_mut().apply(changes);
    }

    /// A pod that is not in the mesh yet.
    pub(super) fn pod(&self, name: &str, host: u8) -> anyhow::Result<TestPod> {
        let (trigger, watch) = drain::channel();
        self.triggers.borrow_mut().push(trigger);
        let workload =
            PodName { namespace: "team".into(), name: name.into(), service_account: name.into() };
        let identity = SpiffeId::new(TrustDomain::default(), "team", name)?;
        let uid = sample::workload(name, "team").uid;
        let (ip, sockets) = (self.ip(host), Sockets::here(None));
        let ips = vec![ip];
        Ok(TestPod {
            pod: Arc::new(Pod {
                uid,
                workload,
                identity,
                ips,
                known: AtomicBool::new(false),
                sockets,
                windows: None,
                drain: watch,
            }),
            ip,
        })
    }

    /// A pod in the mesh, whose tunnel listener is served.
    pub(super) async fn served(&self, name: &str, host: u8) -> anyhow::Result<TestPod> {
        let pod = self.pod(name, host)?;
        self.apply([pod.workload().into()]);
        self.listen(&pod).await?;
        Ok(pod)
    }

    /// Serves the tunnel listener of `pod`.
    pub(super) async fn listen(&self, pod: &TestPod) -> io::Result<JoinHandle<()>> {
        let listener = TcpListener::bind((pod.ip, TUNNEL)).await?;
        let (part, pod) = (Rc::clone(&self.part), Arc::clone(&pod.pod));
        let tunnels = Rc::clone(&self.tunnels);
        Ok(spawn_local(async move {
            while let Ok((socket, peer)) = listener.accept().await {
                tunnels.set(tunnels.get() + 1);
                let (part, pod) = (Rc::clone(&part), Arc::clone(&pod));
                spawn_local(inbound::serve_tunnel(part, pod, socket, peer));
            }
        }))
    }

    /// What the application of `pod` sees when it connects to `to`.
    pub(super) async fn connect(&self, pod: &TestPod, to: SocketAddr) -> io::Result<TcpStream> {
        let (client, captured, peer) = captured().await?;
        let (part, pod) = (Rc::clone(&self.part), Arc::clone(&pod.pod));
        spawn_local(async move { outbound::carry(&part, &pod, captured, (peer, to)).await });
        Ok(client)
    }

    /// What a program outside the mesh sees when it connects to the application of `pod` at `to`.
    pub(super) async fn connect_plainly(
        &self,
        pod: &TestPod,
        to: SocketAddr,
    ) -> io::Result<TcpStream> {
        let (client, captured, peer) = captured().await?;
        let (part, pod) = (Rc::clone(&self.part), Arc::clone(&pod.pod));
        spawn_local(
            async move { inbound::deliver_plaintext(&part, &pod, captured, (peer, to)).await },
        );
        Ok(client)
    }

    /// Forces all pods to end.
    pub(super) async fn force(&self) -> anyhow::Result<()> {
        for trigger in self.triggers.take() {
            ensure!(trigger.force().await == drain::Outcome::Graceful, "no guards here");
        }
        Ok(())
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
    pub(super) async fn application(&self) -> io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind((self.ip, 0)).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    /// An application that sends back what it gets.
    pub(super) async fn echo(&self) -> io::Result<SocketAddr> {
        let (listener, address) = self.application().await?;
        scene::echo(listener);
        Ok(address)
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
async fn captured() -> io::Result<(TcpStream, TcpStream, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let to = listener.local_addr()?;
    let (client, accepted) = tokio::join!(TcpStream::connect(to), listener.accept());
    let (captured, peer) = accepted?;
    Ok((client?, captured, peer))
}
