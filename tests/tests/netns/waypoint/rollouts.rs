//! Rollouts of an application under load: no request fails, though its pods come and go, and the
//! configuration is late.
//!
//! Past the waypoint a connection can be lost with its endpoint: one that the kernel has taken, with
//! its first bytes, when the application closes its listener without having accepted it.
//! `CULVERT_TEST_ROLLOUTS` says how many rollouts, `CULVERT_TEST_RATE` how many requests per second go
//! through the waypoint; the suite makes one, with less delay, at 200.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use harness::asking::Ask;
use harness::backend::{Backend, Guest};
use harness::eventually::eventually;
use harness::pod::{Pod, PodSpec};
use harness::process::Running;
use harness::role::load;

use super::super::mesh::SOON;
use super::super::suite::{Case, pass, times};
use super::mesh_profile::http_route;
use super::scene::Scene;

pub(crate) const CASES: &[Case] =
    &[("waypoint::rollouts::no_request_fails_while_pods_are_replaced", &[], rollouts)];

const PODS: usize = 3;
/// Through the waypoint, and past it.
const THROUGH: &str = "10.96.0.30:80";
const PAST: &str = "10.96.0.31:80";

const PAST_THE_WAYPOINT: &str = "new, past the waypoint";

const SERVICES: &str = "apiVersion: v1
kind: Service
metadata:
  name: roll
  namespace: shop
spec:
  clusterIP: 10.96.0.30
  selector: { app: roll }
  ports: [{ name: http, port: 80, targetPort: 8001 }]
---
apiVersion: v1
kind: Service
metadata:
  name: roll-past
  namespace: shop
  labels: { istio.io/use-waypoint: none }
spec:
  clusterIP: 10.96.0.31
  selector: { app: roll }
  ports: [{ name: http, port: 80, targetPort: 8001 }]
";

/// An endpoint with its application.
struct Replica {
    pod: Pod,
    backend: Backend,
    ending: Arc<AtomicBool>,
}

impl Replica {
    /// A new one, in force.
    fn start(scene: &Scene, number: usize) -> anyhow::Result<Self> {
        let spec = PodSpec::new(&format!("roll-{number}")).namespace("shop").label("app", "roll");
        let pod = scene.cluster.pod(scene.v1.node(), spec.service_account("roll").unannounced())?;
        let ending = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&ending);
        let backend = Backend::start(&pod, 8001, move |guest| serve(guest, &ends))?;
        scene.cluster.mesh().write(&pod.file(), &pod.yaml())?;
        scene.far_ztunnel.serves(&pod)?;
        Ok(Self { pod, backend, ending })
    }

    /// As at SIGTERM: takes nothing new, and finishes what it has. The configuration comes `late`.
    fn end(self, scene: &Scene, late: Duration) -> anyhow::Result<Pod> {
        self.ending.store(true, Ordering::SeqCst);
        drop(self.backend);
        pass(late);
        scene.cluster.mesh().remove(&self.pod.file())?;
        Ok(self.pod)
    }
}

/// Answers what it hears; once it ends, what it has begun with, and no more.
fn serve(guest: &mut Guest, ending: &AtomicBool) -> io::Result<()> {
    guest.wire.stream()?.set_read_timeout(Some(Duration::from_millis(20)))?;
    // Like Go's, it waits for the first request of a connection that it has taken.
    let mut is_new = true;
    loop {
        match guest.wire.request() {
            Ok(None) => return Ok(()),
            Ok(Some(heard)) => {
                is_new = false;
                let asked = heard.header("connection").is_some_and(|said| said.contains("close"));
                let close = asked || ending.load(Ordering::SeqCst);
                let connection = if close { "close" } else { "keep-alive" };
                guest.say(format!(
                    "HTTP/1.1 200 OK\r\nServer: roll\r\nConnection: {connection}\r\nContent-Length: 2\r\n\r\nok"
                ))?;
                if close {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if ending.load(Ordering::SeqCst) && guest.wire.ahead() == 0 && !is_new {
                    return Ok(());
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn load(scene: &Scene, target: &str, rate: usize, fresh: bool) -> anyhow::Result<Running> {
    let rate = rate.to_string();
    let program = scene.client.role("load").args(["--target", target, "--rate", &rate]);
    let program = program.args(["--connections", "8", "--path", "/"]);
    let program = if fresh { program.arg("--fresh") } else { program };
    let mut load = program.start()?;
    load.line_with("counting", SOON)?;
    Ok(load)
}

fn rollouts() -> anyhow::Result<()> {
    let rounds = times("CULVERT_TEST_ROLLOUTS", 1)?;
    let latest = if rounds == 1 { Duration::from_secs(1) } else { Duration::from_secs(5) };
    let scene = Scene::with("rollouts", SERVICES)?;
    let mut replicas: Vec<Replica> =
        (0..PODS).map(|number| Replica::start(&scene, number)).collect::<Result<_, _>>()?;
    for target in [THROUGH, PAST] {
        eventually(SOON, "the service answers", || {
            let answer = Ask::get(target.parse()?, "/").from(&scene.client)?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })?;
    }
    let rules = "  - retry: {attempts: 2}\n    timeouts: {request: 20s}\n    \
                 backendRefs: [{name: roll, port: 80}]";
    scene.cluster.mesh().write("routes.yaml", &http_route("roll", "roll", rules))?;
    let rate = times("CULVERT_TEST_RATE", 200)?;
    let loads = [
        ("kept", rate * 3 / 4, load(&scene, THROUGH, rate * 3 / 4, false)?),
        ("new", rate / 4, load(&scene, THROUGH, rate / 4, true)?),
        (PAST_THE_WAYPOINT, 50, load(&scene, PAST, 50, true)?),
    ];
    let mut gone = Vec::new();
    for number in PODS..PODS * (rounds + 1) {
        let replica = Replica::start(&scene, number)?;
        replicas.push(replica);
        let late = latest.mul_f64(fastrand::f64());
        gone.push(replicas.remove(0).end(&scene, late)?);
    }
    for (what, rate, load) in loads {
        let report: load::Report = load.finish(SOON)?;
        eprintln!("{what}: {} requests, {:?}", report.ok, report.errors);
        let lost = if what == PAST_THE_WAYPOINT { gone.len() as u64 } else { 0 };
        // The rollout is over in a moment when the delays come out short: what is due depends on it.
        let due = rate as f64 * report.seconds;
        ensure!(report.failed() <= lost && report.ok as f64 > due / 2.0, "{what}: {report:?}");
    }
    Ok(())
}
