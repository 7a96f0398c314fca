//! What goes wrong in the market, and what its clients notice of that.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use harness::asking::Ask;
use harness::cluster::{Cluster, Node};
use harness::eventually::eventually;
use harness::pod::{Pod, PodSpec};
use harness::process::Running;

use crate::flows::Flow;
use crate::market::{self, pod_of};
use crate::say;
use crate::scene::{SOON, Scene};

/// The stock's virtual address.
const STOCK: [u8; 4] = [10, 96, 0, 22];
const ASKED: usize = 100;
/// As `STOCK_OBJECTS` limits it.
const AT_ONCE: usize = 4;

/// A service of two replicas.
pub(crate) struct Stock {
    pods: [Pod; 2],
    applications: [Running; 2],
}

impl Stock {
    pub(crate) fn build(cluster: &Cluster, node: &Arc<Node>) -> anyhow::Result<Self> {
        cluster.mesh().write("market-stock.yaml", STOCK_OBJECTS)?;
        let pod = |number: u32| {
            let spec = PodSpec::new(&format!("stock-{number}")).namespace("market");
            cluster.pod(node, spec.label("app", "stock"))
        };
        let pods = [pod(1)?, pod(2)?];
        let applications = [market::application(&pods[0])?, market::application(&pods[1])?];
        cluster.host("stock", IpAddr::from(STOCK))?;
        Ok(Self { pods, applications })
    }

    pub(crate) fn pods(&self) -> &[Pod; 2] {
        &self.pods
    }
}

/// One replica dies and comes back; then there is too much at once.
pub(crate) fn run(scene: &mut Scene) -> anyhow::Result<Vec<Flow>> {
    say("  client → stock: one of two replicas dies and comes back; too much at once");
    eventually(SOON, "both replicas are asked", || {
        let answers = asked(scene, ASKED / 5)?;
        ensure!(answers.len() == 2, "{answers:?}");
        anyhow::Ok(())
    })?;
    scene.market.stock.applications[1].kill();
    let hidden = hidden(scene);
    let revived = market::application(&scene.market.stock.pods[1])?;
    scene.market.stock.applications[1] = revived;
    let returned = returned(scene);
    let limited = limited(scene);
    let went = [
        ("client → stock (a replica dies: retries)", hidden),
        ("client → stock (the replica is left out, and returns)", returned),
        ("client → stock (too much at once: circuit breaker)", limited),
    ];
    Ok(went.into_iter().map(|(title, went)| market::flow(scene, title, "stock", went)).collect())
}

fn ask(path: &str) -> Ask {
    Ask::get(SocketAddr::from((STOCK, 80)), path).header("Host", "stock")
}

/// Asks, every second time with a body, and says which pod answered how often.
///
/// # Errors
/// An answer other than 200.
fn asked(scene: &Scene, times: usize) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut answers = BTreeMap::new();
    for number in 0..times {
        let order = ask("/orders");
        let order = if number % 2 == 0 { order } else { order.method("POST").body(b"one book") };
        let answer = order.from(&scene.client)?;
        ensure!(answer.status == 200, "{} after {answers:?}: {answer:?}", answer.status);
        *answers.entry(pod_of(&answer)).or_default() += 1;
    }
    Ok(answers)
}

fn hidden(scene: &Scene) -> anyhow::Result<String> {
    let before = scene.market.waypoint.log().len();
    let answers = asked(scene, ASKED)?;
    let [alive, dead] = scene.market.stock.pods();
    ensure!(answers.get(alive.name()) == Some(&ASKED), "{answers:?}");
    let again = eventually(SOON, "an attempt failed", || {
        let lines = scene.market.waypoint.log();
        let again = lines[before..].iter().filter(|line| line["attempts"].as_u64() > Some(1));
        let count = again.count();
        ensure!(count > 0, "no request was sent twice");
        anyhow::Ok(count)
    })?;
    Ok(format!(
        "{} died; {ASKED} requests, half of them POST: none failed, {again} sent to another replica",
        dead.name()
    ))
}

fn returned(scene: &Scene) -> anyhow::Result<String> {
    let back = Instant::now();
    let [_, replica] = scene.market.stock.pods();
    let line = |message: &str| {
        let of_replica = |line: &serde_json::Value| {
            let endpoint = line["endpoint"].as_str().unwrap_or_default();
            line["message"] == message && endpoint.ends_with(replica.name())
        };
        scene.market.waypoint.log().into_iter().find(of_replica)
    };
    let out = line("endpoint is ejected").context("it was not left out")?;
    eventually(SOON, "the replica is in again", || {
        asked(scene, ASKED / 10)?;
        line("endpoint is in again").context("it is still left out")
    })?;
    Ok(format!(
        "left out for {} s after a failure ({}); in again {} ms after it was started anew",
        out["seconds"].as_str().unwrap_or("?"),
        out["reason"].as_str().unwrap_or("?"),
        back.elapsed().as_millis()
    ))
}

fn limited(scene: &Scene) -> anyhow::Result<String> {
    let slow = || ask("/delay/1000").from(&scene.client);
    let answers = thread::scope(|threads| {
        let asking: Vec<_> = (0..3 * AT_ONCE).map(|_| threads.spawn(slow)).collect();
        asking.into_iter().map(|one| one.join().expect("asking does not panic")).collect::<Vec<_>>()
    });
    let answers: Vec<_> = answers.into_iter().collect::<Result<_, _>>()?;
    let (good, rest): (Vec<_>, Vec<_>) = answers.iter().partition(|one| one.status == 200);
    let refused = rest
        .iter()
        .filter(|one| one.status == 503 && one.header("x-envoy-overloaded") == Some("true"));
    let refused = refused.count();
    ensure!(good.len() >= AT_ONCE && refused == rest.len() && refused > 0, "{answers:?}");
    let after = ask("/").from(&scene.client)?;
    ensure!(after.status == 200, "afterwards: {after:?}");
    Ok(format!(
        "{} requests at a time, {AT_ONCE} allowed: {} answered, {refused} refused at once with 503 \
         and x-envoy-overloaded; the next one is answered",
        3 * AT_ONCE,
        good.len()
    ))
}

/// The service, and how its endpoints are to be treated.
const STOCK_OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: stock, namespace: market}
spec:
  clusterIP: 10.96.0.22
  selector: {app: stock}
  ports:
  - {name: http, port: 80, targetPort: 8080, appProtocol: http}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: stock, namespace: market}
spec:
  host: stock
  trafficPolicy:
    connectionPool:
      http: {http2MaxRequests: 4}
    outlierDetection:
      consecutive5xxErrors: 1
      baseEjectionTime: 1s
      interval: 1s
      maxEjectionPercent: 50
"#;
