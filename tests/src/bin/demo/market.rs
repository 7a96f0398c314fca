//! A namespace with a waypoint: two versions of a catalogue, and routes between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::asking::{Answer, Ask};
use harness::backend::{self, Backend};
use harness::cluster::Cluster;
use harness::eventually::eventually;
use harness::pod::{Pod, PodSpec};
use harness::process::Running;
use harness::proxies::Authority;
use harness::sums;
use harness::waypoint::Waypoint;
use harness::wire::Wire;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::faults::Stock;
use crate::flows::Flow;
use crate::say;
use crate::scene::{SOON, Scene};

/// The catalogue's virtual address.
const CATALOGUE: [u8; 4] = [10, 96, 0, 20];
/// That of its second version alone.
const SECOND: [u8; 4] = [10, 96, 0, 21];
const ASKED: usize = 200;

/// The namespace `market` and what runs in it.
pub(crate) struct Market {
    pub(crate) v1: Pod,
    pub(crate) v2: Pod,
    pub(crate) waypoint_pod: Pod,
    pub(crate) waypoint: Waypoint,
    pub(crate) stock: Stock,
    _servers: Vec<Running>,
    _chat: Backend,
}

impl Market {
    pub(crate) fn build(
        cluster: &Cluster,
        node: &std::sync::Arc<harness::cluster::Node>,
        authority: &Authority,
    ) -> anyhow::Result<Self> {
        let mesh = cluster.mesh();
        mesh.write("market-waypoint.yaml", &Waypoint::gateway("market", "waypoint", "10.96.0.2"))?;
        mesh.write("market.yaml", MARKET)?;
        let catalogue = |version: &str| {
            let spec = PodSpec::new(&format!("catalogue-{version}")).namespace("market");
            cluster.pod(node, spec.label("app", "catalogue").label("version", version))
        };
        let (v1, v2) = (catalogue("v1")?, catalogue("v2")?);
        let waypoint_pod = cluster.pod(node, Waypoint::pod("waypoint-1", "market", "waypoint"))?;
        let mut servers = Vec::new();
        for pod in [&v1, &v2] {
            servers.push(application(pod)?);
        }
        let sums = backend::listen(&v1, 9090)?;
        std::thread::spawn(move || sums::serve(sums));
        let chat = Backend::start(&v1, 9091, |guest| {
            let accepted = tungstenite::accept(guest.wire.stream()?);
            let mut socket = accepted.map_err(std::io::Error::other)?;
            while let Ok(message) = socket.read() {
                if message.is_text() {
                    socket.send(message).map_err(std::io::Error::other)?;
                }
            }
            Ok(())
        })?;
        let stock = Stock::build(cluster, node)?;
        let waypoint = Waypoint::start(cluster, &waypoint_pod, authority)?;
        waypoint.ready(&waypoint_pod)?;
        cluster.host("catalogue", IpAddr::from(CATALOGUE))?;
        Ok(Self { v1, v2, waypoint_pod, waypoint, stock, _servers: servers, _chat: chat })
    }
}

/// Starts an HTTP application in a pod.
pub(crate) fn application(pod: &Pod) -> anyhow::Result<Running> {
    let app = pod.role("app").args(["--listen", "[::]:8080", "--name", pod.name()]);
    let mut app = app.start()?;
    app.line_with("listening", SOON)?;
    Ok(app)
}

/// What was seen, if it is what the routes say.
type Check = fn(&Scene) -> anyhow::Result<String>;

/// Runs what the routes of the market are there for.
pub(crate) fn run(scene: &Scene) -> anyhow::Result<Vec<Flow>> {
    say("  client → catalogue: HTTP, gRPC and a WebSocket through a waypoint");
    let checks: [(&'static str, Check); 7] = [
        ("client → catalogue (canary 90/10)", canary),
        ("client → catalogue (route by header)", by_header),
        ("client → catalogue (mirror)", mirrored),
        ("client → catalogue (redirect)", redirected),
        ("client → catalogue-v2 (fails on purpose)", failed_on_purpose),
        ("client → catalogue (gRPC)", called),
        ("client → catalogue (WebSocket)", chatted),
    ];
    eventually(SOON, "the market answers", || {
        let answer = ask("/").from(&scene.client)?;
        ensure!(answer.status == 200, "{answer:?}");
        anyhow::Ok(())
    })?;
    let flow = |(title, check): (_, Check)| flow(scene, title, "catalogue", check(scene));
    Ok(checks.into_iter().map(flow).collect())
}

/// What is told of traffic to the service `to`.
pub(crate) fn flow(
    scene: &Scene,
    title: &'static str,
    to: &str,
    went: anyhow::Result<String>,
) -> Flow {
    let market = &scene.market;
    let proved = market.waypoint.log().into_iter().find(|line| {
        let proved = line["dst.identity"].as_str().unwrap_or_default();
        line["src.identity"] == scene.client.identity() && proved.contains(&format!("/sa/{to}-"))
    });
    let known = proved.is_some();
    let target = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap_or("?").to_owned();
    Flow {
        title,
        good: went.is_ok() && known,
        outcome: went.unwrap_or_else(|error| format!("{error:#}")),
        path: format!(
            "ztunnel of {} → HBONE to waypoint-1 ({}) → HBONE to {to}",
            scene.client.node().name(),
            market.waypoint_pod.node().name()
        ),
        identities: proved.map_or_else(
            || "not seen".to_owned(),
            |line| {
                let (from, to) = (target(&line, "src.identity"), target(&line, "dst.identity"));
                format!("{from} and {to}, each to the waypoint")
            },
        ),
        policy: None,
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((CATALOGUE, port))
}

fn ask(path: &str) -> Ask {
    Ask::get(at(80), path).header("Host", "catalogue")
}

/// Which pod answered.
pub(crate) fn pod_of(answer: &Answer) -> String {
    answer.header("x-pod").unwrap_or("nobody").to_owned()
}

fn canary(scene: &Scene) -> anyhow::Result<String> {
    let mut answers = BTreeMap::<String, usize>::new();
    for _ in 0..ASKED {
        *answers.entry(pod_of(&ask("/").from(&scene.client)?)).or_default() += 1;
    }
    let count = |pod: &Pod| answers.get(pod.name()).copied().unwrap_or(0);
    let (one, two) = (count(&scene.market.v1), count(&scene.market.v2));
    // Five deviations of a share of 10 %.
    ensure!(one + two == ASKED && two.abs_diff(ASKED / 10) <= 21, "{answers:?}");
    Ok(format!("{one} answered by catalogue-v1, {two} by catalogue-v2"))
}

fn by_header(scene: &Scene) -> anyhow::Result<String> {
    for _ in 0..20 {
        let answer = ask("/").header("x-version", "v2").from(&scene.client)?;
        ensure!(pod_of(&answer) == scene.market.v2.name(), "{answer:?}");
    }
    Ok("20 with x-version: v2, all answered by catalogue-v2".to_owned())
}

fn mirrored(scene: &Scene) -> anyhow::Result<String> {
    let seen = || -> anyhow::Result<u64> {
        let (_, body) = scene.market.v2.get("127.0.0.1:8080", "/count")?;
        Ok(body.parse()?)
    };
    let before = seen()?;
    let answer = ask("/orders").method("POST").body(b"one book").from(&scene.client)?;
    ensure!(pod_of(&answer) == scene.market.v1.name(), "{answer:?}");
    eventually(Duration::from_secs(5), "the copy arrives", || {
        let copies = seen()? - before;
        ensure!(copies == 1, "{copies} copies");
        anyhow::Ok(())
    })?;
    Ok("POST /orders answered by catalogue-v1; a copy of it reached catalogue-v2".to_owned())
}

fn redirected(scene: &Scene) -> anyhow::Result<String> {
    let answer = ask("/old/page?x=1").from(&scene.client)?;
    let location = answer.header("location").unwrap_or_default();
    ensure!(answer.status == 301 && location.ends_with("/new/page?x=1"), "{answer:?}");
    Ok(format!("GET /old/page?x=1: 301 to {location}"))
}

fn failed_on_purpose(scene: &Scene) -> anyhow::Result<String> {
    let ask = || Ask::get(SocketAddr::from((SECOND, 80)), "/").header("Host", "catalogue-v2");
    let mut aborted = 0;
    for _ in 0..ASKED {
        let answer = ask().header("x-tester", "chaos").from(&scene.client)?;
        let caused = answer.header("proxy-status").is_some_and(|it| it.contains("FAULT_ABORTED"));
        ensure!(answer.status == 200 || (answer.status == 503 && caused), "{answer:?}");
        aborted += usize::from(caused);
        let spared = ask().from(&scene.client)?;
        ensure!(pod_of(&spared) == scene.market.v2.name(), "{spared:?}");
    }
    // Five deviations of a fair coin.
    ensure!(aborted.abs_diff(ASKED / 2) <= 36, "{aborted} of {ASKED}");
    Ok(format!("{aborted} of {ASKED} with x-tester: chaos answered 503, none of the others"))
}

fn called(scene: &Scene) -> anyhow::Result<String> {
    let stream = Wire::open(&scene.client, at(9090))?.into_stream();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        stream.set_nonblocking(true)?;
        let mut client = sums::client(tokio::net::TcpStream::from_std(stream)?).await?;
        client.ready().await?;
        let numbers = futures_util::stream::iter((1..=100).map(|value| sums::Number { value }));
        let request = tonic::Request::new(numbers);
        let answer = client.client_streaming(request, sums::method("Total"), sums::codec()).await?;
        let total = answer.into_inner().value;
        ensure!(total == 5_050, "{total}");
        Ok(format!("a stream of 100 numbers, and their sum {total} as the answer"))
    })
}

fn chatted(scene: &Scene) -> anyhow::Result<String> {
    let stream = Wire::open(&scene.client, at(9091))?.into_stream();
    let (mut socket, response) = tungstenite::client("ws://catalogue/chat", stream)
        .map_err(|error| anyhow::anyhow!("{error}"))
        .context("the handshake")?;
    socket.send(Message::text("hello"))?;
    let heard = socket.read()?;
    ensure!(heard == Message::text("hello"), "{heard:?}");
    Ok(format!("status {}, and \"hello\" came back", response.status().as_u16()))
}

/// The namespace, its services and its routes.
const MARKET: &str = r#"
apiVersion: v1
kind: Namespace
metadata:
  name: market
  labels: {istio.io/use-waypoint: waypoint}
---
apiVersion: v1
kind: Service
metadata: {name: catalogue, namespace: market}
spec:
  clusterIP: 10.96.0.20
  selector: {app: catalogue, version: v1}
  ports:
  - {name: http, port: 80, targetPort: 8080, appProtocol: http}
  - {name: grpc, port: 9090, targetPort: 9090, appProtocol: grpc}
  - {name: chat, port: 9091, targetPort: 9091, appProtocol: kubernetes.io/ws}
---
apiVersion: v1
kind: Service
metadata: {name: catalogue-v2, namespace: market}
spec:
  clusterIP: 10.96.0.21
  selector: {app: catalogue, version: v2}
  ports:
  - {name: http, port: 80, targetPort: 8080, appProtocol: http}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: catalogue, namespace: market}
spec:
  parentRefs:
  - {group: "", kind: Service, name: catalogue, port: 80}
  rules:
  - name: canary
    backendRefs:
    - {name: catalogue, port: 80, weight: 90}
    - {name: catalogue-v2, port: 80, weight: 10}
  - name: by-header
    matches: [{headers: [{name: x-version, value: v2}]}]
    backendRefs: [{name: catalogue-v2, port: 80}]
  - name: mirror
    matches: [{path: {value: /orders}}]
    filters:
    - type: RequestMirror
      requestMirror: {backendRef: {name: catalogue-v2, port: 80}}
    backendRefs: [{name: catalogue, port: 80}]
  - name: redirect
    matches: [{path: {value: /old}}]
    filters:
    - type: RequestRedirect
      requestRedirect:
        path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}
        statusCode: 301
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: catalogue-v2, namespace: market}
spec:
  hosts: [catalogue-v2]
  http:
  - match: [{headers: {x-tester: {exact: chaos}}}]
    fault: {abort: {httpStatus: 503, percentage: {value: 50}}}
    route: [{destination: {host: catalogue-v2}}]
  - route: [{destination: {host: catalogue-v2}}]
"#;
