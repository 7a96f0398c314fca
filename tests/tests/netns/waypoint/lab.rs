//! A scene with a service of many ports, behind which the test itself may be the application.

use std::cell::Cell;
use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use harness::asking::Ask;
use harness::backend::{Backend, Guest};
use harness::eventually::eventually;
use harness::wire::Wire;

use super::super::mesh::SOON;
use super::scene::Scene;

/// HTTP, answered by the application `app`.
pub(crate) const APP: u16 = 80;
/// Of no known protocol, answered by the application `app`.
pub(crate) const SNIFFED_APP: u16 = 81;
/// gRPC, that is HTTP/2, answered by the application `app`.
pub(crate) const GRPC_APP: u16 = 7070;
/// HTTP/1.1, to be answered by the test.
pub(crate) const HTTP: u16 = 8001;
/// The same once more.
pub(crate) const HTTP_TOO: u16 = 8006;
/// HTTP/2, to be answered by the test.
pub(crate) const HTTP2: u16 = 8002;
/// gRPC, to be answered by the test.
pub(crate) const GRPC: u16 = 8003;
/// Of no known protocol, to be answered by the test.
pub(crate) const UNNAMED: u16 = 8004;
/// The same once more.
pub(crate) const UNNAMED_TOO: u16 = 8005;

/// HTTP/1.1, one for each check that must not meet connections of another.
const FRESH: u16 = 8100;
/// The same of HTTP/2.
const FRESH_HTTP2: u16 = 8200;
const FRESH_PORTS: u16 = 40;

/// A scene with the services `lab`, whose application is in the pod of version 1, and `empty`,
/// which has none; `both` has
/// both versions, which listen where it says only if the test does.
pub(crate) struct Lab {
    pub(crate) scene: Scene,
    /// Ports of HTTP/1.1 that were given away.
    taken: Cell<u16>,
}

/// Something that must hold in a lab: what, and how it is seen.
pub(crate) type Check = (&'static str, fn(&Lab) -> anyhow::Result<()>);

impl Lab {
    /// Makes a lab and checks everything in it; the error tells all that does not hold.
    pub(crate) fn all(name: &str, checks: &[Check]) -> anyhow::Result<()> {
        let lab = Self::new(name)?;
        let failed =
            |(what, check): &Check| check(&lab).err().map(|error| format!("{what}: {error:#}"));
        let failed: Vec<String> = checks.iter().filter_map(failed).collect();
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    }

    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let ports = (0..FRESH_PORTS)
            .flat_map(|number| [("http", FRESH + number), ("http2", FRESH_HTTP2 + number)]);
        let line = |(protocol, port)| format!("  - {{ name: {protocol}-{port}, port: {port} }}\n");
        let services = SERVICES.replace("FRESH\n", &ports.map(line).collect::<String>());
        Ok(Self { scene: Scene::with(name, &services)?, taken: Cell::new(0) })
    }

    /// Where a port of the service is.
    pub(crate) fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 96, 0, 20], port))
    }

    /// A connection from the client to a port.
    pub(crate) fn wire(&self, port: u16) -> anyhow::Result<Wire> {
        Ok(Wire::open(&self.scene.client, Self::at(port))?)
    }

    /// A request to a port, to be completed.
    pub(crate) fn get(port: u16, path: &str) -> Ask {
        Ask::get(Self::at(port), path)
    }

    /// An application of the test's own, where version 1 runs.
    pub(crate) fn backend<F>(&self, port: u16, serve: F) -> anyhow::Result<Backend>
    where
        F: Fn(&mut Guest) -> std::io::Result<()> + Send + Sync + 'static,
    {
        Ok(Backend::start(&self.scene.v1, port, serve)?)
    }

    /// A port of HTTP/1.1 behind which nobody has been yet: no connection to it is left.
    pub(crate) fn fresh(&self) -> u16 {
        let taken = self.taken.replace(self.taken.get() + 1);
        assert!(taken < FRESH_PORTS, "the lab has no more ports");
        FRESH + taken
    }

    /// The same of HTTP/2.
    pub(crate) fn fresh_http2(&self) -> u16 {
        self.fresh() - FRESH + FRESH_HTTP2
    }

    /// Whoever else asks is answered.
    pub(crate) fn still_answers(&self) -> anyhow::Result<()> {
        let answer = Self::get(APP, "/still").from(&self.scene.client)?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    }

    /// Memory that the waypoint has resident.
    pub(crate) fn memory_bytes(&self) -> anyhow::Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most that it ever had.
    pub(crate) fn most_memory_bytes(&self) -> anyhow::Result<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, field: &str) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.scene.waypoint.pid());
        let status = std::fs::read_to_string(path)?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no such field")?;
        Ok(kib.trim().parse::<u64>()? << 10)
    }

    /// Waits for a line of the waypoint's log that names `cause`.
    pub(crate) fn told(&self, cause: &str) -> anyhow::Result<serde_json::Value> {
        eventually(SOON, &format!("the log names {cause}"), || {
            self.scene.waypoint.caused(cause).pop().ok_or("it does not")
        })
    }
}

const SERVICES: &str = "apiVersion: v1
kind: Service
metadata:
  name: lab
  namespace: shop
spec:
  clusterIP: 10.96.0.20
  selector:
    version: v1
  ports:
  - { name: http, port: 80, targetPort: 8080 }
  - { name: unknown, port: 81, targetPort: 8080 }
  - { name: grpc-app, port: 7070, targetPort: 8080 }
  - { name: http-raw, port: 8001, targetPort: 8001 }
  - { name: http-raw-too, port: 8006, targetPort: 8006 }
  - { name: http2-raw, port: 8002, targetPort: 8002 }
  - { name: grpc-raw, port: 8003, targetPort: 8003 }
  - { name: raw, port: 8004, targetPort: 8004 }
  - { name: raw-too, port: 8005, targetPort: 8005 }
FRESH
---
apiVersion: v1
kind: Service
metadata:
  name: empty
  namespace: shop
spec:
  clusterIP: 10.96.0.21
  selector:
    version: none
  ports:
  - { name: http, port: 80, targetPort: 8080 }
---
apiVersion: v1
kind: Service
metadata:
  name: both
  namespace: shop
spec:
  clusterIP: 10.96.0.22
  selector:
    app: echo
  ports:
  - { name: http, port: 80, targetPort: 8001 }
";
