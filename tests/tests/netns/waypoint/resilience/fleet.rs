//! A service of five endpoints, each of which fails and dawdles as the test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use harness::backend::{Backend, Guest};
use harness::eventually::{eventually, pause};
use harness::pod::{Pod, PodSpec};
use harness::role::load;

use super::super::super::mesh::SOON;
use super::super::scene::Scene;

const PORT: u16 = 8080;

/// Five endpoints behind `fleet`.
pub(super) struct Fleet {
    pub(super) scene: Scene,
    pub(super) members: Vec<Member>,
}

/// One endpoint.
pub(super) struct Member {
    pub(super) name: String,
    mood: Arc<Mood>,
    _backend: Backend,
    pub(super) pod: Pod,
}

#[derive(Default)]
struct Mood {
    /// Of 100 requests, so many are answered 500.
    fails_percent: AtomicU32,
    delay_ms: AtomicU32,
    asked: AtomicU32,
}

impl Fleet {
    pub(super) fn new(name: &str) -> anyhow::Result<Self> {
        let scene = Scene::with(name, SERVICE)?;
        let mut members = Vec::new();
        for number in 0..5 {
            let name = format!("member-{number}");
            let spec = PodSpec::new(&name).namespace("shop").label("app", "fleet");
            // The first three are where the waypoint is.
            let node = if number < 3 { scene.v1.node() } else { scene.client.node() };
            let pod = scene.cluster.pod(node, spec)?;
            let mood = Arc::<Mood>::default();
            let (own, told) = (Arc::clone(&mood), name.clone());
            let backend = Backend::start(&pod, PORT, move |guest| serve(guest, &own, &told))?;
            members.push(Member { name, mood, _backend: backend, pod });
        }
        let fleet = Self { scene, members };
        eventually(SOON, "all members answer", || {
            let report = fleet.load(200, 0.5, &[]).map_err(|error| error.to_string())?;
            let all = report.servers.len() == 5 && report.failed() == 0;
            if all { Ok(()) } else { Err(format!("{report:?}")) }
        })?;
        Ok(fleet)
    }

    pub(super) fn at() -> SocketAddr {
        ([10, 96, 0, 40], 80).into()
    }

    /// `rate` requests a second for `seconds`, and what came of them.
    pub(super) fn load(
        &self,
        rate: u32,
        seconds: f64,
        more: &[&str],
    ) -> anyhow::Result<load::Report> {
        self.scene
            .client
            .role("load")
            .args(["--target", &Self::at().to_string(), "--path", "/", "--connections", "8"])
            .args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()])
            .args(more)
            .start()?
            .result(SOON + Duration::from_secs_f64(seconds))
    }
}

impl Member {
    /// Of 100 requests, so many fail.
    pub(super) fn fails(&self, percent: u32) {
        self.mood.fails_percent.store(percent, Ordering::SeqCst);
    }

    /// Each answer comes so late.
    pub(super) fn dawdles(&self, millis: u32) {
        self.mood.delay_ms.store(millis, Ordering::SeqCst);
    }

    /// Requests so far.
    pub(super) fn asked(&self) -> u32 {
        self.mood.asked.load(Ordering::SeqCst)
    }
}

fn serve(guest: &mut Guest, mood: &Mood, name: &str) -> std::io::Result<()> {
    while guest.wire.request()?.is_some() {
        mood.asked.fetch_add(1, Ordering::SeqCst);
        pause(Duration::from_millis(mood.delay_ms.load(Ordering::SeqCst).into()));
        let fails = fastrand::u32(..100) < mood.fails_percent.load(Ordering::SeqCst);
        let status = if fails { "500 Internal Server Error" } else { "200 OK" };
        guest.say(format!("HTTP/1.1 {status}\r\nServer: {name}\r\nContent-Length: 2\r\n\r\nok"))?;
    }
    Ok(())
}

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata:
  name: fleet
  namespace: shop
spec:
  clusterIP: 10.96.0.40
  selector:
    app: fleet
  ports:
  - { name: http, port: 80, targetPort: 8080 }
";
