//! A service that grows: what lasts spreads over the new endpoints, through the waypoint by request and
//! past it by connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::eventually::eventually;
use harness::pod::{Pod, PodSpec};
use harness::process::Running;
use harness::wire::Wire;

use super::super::super::mesh::{SOON, serve};
use super::super::super::suite::Case;
use super::super::http2::{self, call, seen};
use super::super::scene::Scene;

pub(super) const CASES: &[Case] = &[
    ("waypoint::resilience::spread::calls_of_lasting_clients_follow_the_service", &[], calls),
    ("waypoint::resilience::spread::past_the_waypoint_new_connections_do", &[], connections),
];

const SERVICES: &str = "apiVersion: v1
kind: Service
metadata: { name: grow, namespace: shop }
spec:
  clusterIP: 10.96.0.50
  selector: { app: grow }
  ports: [{ name: grpc, port: 80, targetPort: 8080 }]
---
apiVersion: v1
kind: Service
metadata: { name: grow-past, namespace: shop, labels: { istio.io/use-waypoint: none } }
spec:
  clusterIP: 10.96.0.51
  selector: { app: grow }
  ports: [{ name: http, port: 80, targetPort: 8080 }]
";

const THROUGH: ([u8; 4], u16) = ([10, 96, 0, 50], 80);
const PAST: ([u8; 4], u16) = ([10, 96, 0, 51], 80);

const CLIENTS: usize = 20;

/// An endpoint with its application.
type Replica = (Pod, Running);

fn replica(scene: &Scene, number: usize) -> anyhow::Result<Replica> {
    let spec = PodSpec::new(&format!("grow-{number}")).namespace("shop").label("app", "grow");
    let pod = scene.cluster.pod(scene.v1.node(), spec.service_account("grow").unannounced())?;
    let application = serve(&pod, "app", 8080)?;
    scene.cluster.mesh().write(&pod.file(), &pod.yaml())?;
    scene.far_ztunnel.serves(&pod)?;
    Ok((pod, application))
}

/// From one to three.
fn grow(scene: &Scene, replicas: &mut Vec<Replica>) -> anyhow::Result<()> {
    for number in replicas.len()..3 {
        replicas.push(replica(scene, number)?);
    }
    Ok(())
}

/// Spec: of three endpoints none has more than 1.2 times the mean.
fn is_even(counts: &BTreeMap<String, usize>) -> bool {
    let most = counts.values().max().copied().unwrap_or_default();
    counts.len() == 3 && most * 3 * 10 <= counts.values().sum::<usize>() * 12
}

/// When a call was over, and who answered.
type Call = (Instant, anyhow::Result<String>);

/// What callers have seen.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    fn tell(&self, answer: anyhow::Result<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((Instant::now(), answer));
    }

    /// Who answered since then.
    fn since(&self, start: Instant) -> anyhow::Result<BTreeMap<String, usize>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = BTreeMap::new();
        for (_, answer) in all.iter().filter(|(at, _)| *at >= start) {
            let pod =
                answer.as_ref().map_err(|error| anyhow::anyhow!("a call failed: {error:#}"))?;
            *counts.entry(pod.clone()).or_default() += 1;
        }
        Ok(counts)
    }
}

/// One connection, on which a call follows another until nobody listens any more.
async fn keeps_calling(pod: &Pod, calls: Calls) -> anyhow::Result<()> {
    let mut sender = http2::open(pod, THROUGH.into()).await?;
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    // The test has a copy, and so have the others.
    while Arc::strong_count(&calls.0) > CLIENTS {
        pace.tick().await;
        sender.ready().await?;
        let answer = async { Ok(seen(sender.send_request(call("/")).await?).await?.pod) };
        calls.tell(answer.await);
    }
    Ok(())
}

fn calls() -> anyhow::Result<()> {
    let scene = Scene::with("spread-calls", SERVICES)?;
    let mut replicas = vec![replica(&scene, 0)?];
    let calls = Calls::default();
    let told = calls.clone();
    std::thread::scope(|scope| {
        let callers = scope.spawn(|| {
            let told = told;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let all = (0..CLIENTS).map(|_| keeps_calling(&scene.client, told.clone()));
                let all = futures_util::future::join_all(all.collect::<Vec<_>>());
                drop(told);
                all.await.into_iter().collect::<anyhow::Result<()>>()
            })
        });
        let spread = spreads(&scene, &mut replicas, &calls);
        drop(calls);
        callers.join().map_err(|_| anyhow::anyhow!("a caller panicked"))??;
        spread
    })
}

fn spreads(scene: &Scene, replicas: &mut Vec<Replica>, calls: &Calls) -> anyhow::Result<()> {
    let start = Instant::now();
    eventually(SOON, "all calls are answered by the one", || -> anyhow::Result<()> {
        let counts = calls.since(start)?;
        ensure!(counts.values().sum::<usize>() > 5 * CLIENTS, "{counts:?}");
        Ok(())
    })?;
    grow(scene, replicas)?;
    let grown = Instant::now();
    eventually(SOON, "all three answer alike", || -> anyhow::Result<()> {
        let lately = Instant::now().checked_sub(Duration::from_secs(2)).context("a new machine")?;
        let counts = calls.since(lately.max(grown))?;
        ensure!(counts.values().sum::<usize>() > 10 * CLIENTS && is_even(&counts), "{counts:?}");
        Ok(())
    })?;
    eprintln!("even after {:?}", grown.elapsed());
    // None has failed, from the beginning.
    calls.since(start).map(drop)
}

/// A connection that stays, and who is at its other end.
fn held(scene: &Scene) -> anyhow::Result<(Wire, String)> {
    let mut wire = Wire::open(&scene.client, SocketAddr::from(PAST))?;
    wire.say("GET / HTTP/1.1\r\nHost: grow\r\n\r\n")?;
    let pod = wire.answer("GET")?.seen()?.pod;
    Ok((wire, pod))
}

fn connections() -> anyhow::Result<()> {
    let scene = Scene::with("spread-connections", SERVICES)?;
    let mut replicas = vec![replica(&scene, 0)?];
    eventually(SOON, "it is reached", || held(&scene).map(drop))?;
    let mut wires = Vec::new();
    let mut counts = BTreeMap::new();
    let mut one_more = |counts: &mut BTreeMap<String, usize>| -> anyhow::Result<()> {
        let (wire, pod) = held(&scene)?;
        wires.push(wire);
        *counts.entry(pod).or_default() += 1;
        Ok(())
    };
    for _ in 0..CLIENTS {
        one_more(&mut counts)?;
    }
    grow(&scene, &mut replicas)?;
    // Those that are open stay where they are; the new ones go where less is open.
    eventually(SOON, "as many are open to each", || -> anyhow::Result<()> {
        one_more(&mut counts)?;
        ensure!(is_even(&counts), "{counts:?}");
        Ok(())
    })?;
    let all: usize = counts.values().sum();
    eprintln!("even with {all} connections: {counts:?}");
    Ok(())
}
