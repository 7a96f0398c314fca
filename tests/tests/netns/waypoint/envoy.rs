//! Envoy as the client of our waypoint: its own HBONE, its own HTTP/2, its own TLS.

use anyhow::ensure;
use harness::asking::Ask;
use harness::cluster::Cluster;
use harness::eventually::eventually;
use harness::peers::{CertDir, Envoy};
use harness::pod::PodSpec;
use harness::proxies::Ztunnel;
use harness::waypoint::Waypoint;
use harness::wire::Wire;

use super::super::mesh::{SOON, serve};
use super::super::suite::Case;
use super::scene;

pub(crate) const CASES: &[Case] =
    &[("waypoint::envoy::an_envoy_is_a_client_of_the_waypoint", &["envoy"], client)];

fn client() -> anyhow::Result<()> {
    let cluster = Cluster::new("waypoint-envoy")?;
    let (near, far) = (cluster.node("near")?, cluster.node("far")?);
    let mesh = cluster.mesh();
    mesh.write("waypoint.yaml", &Waypoint::gateway("shop", "waypoint", "10.96.0.2"))?;
    mesh.write("namespace.yaml", scene::NAMESPACE)?;
    mesh.write("echo.yaml", &scene::service("echo", "10.96.0.10", "app: echo"))?;
    let shop = |name: &str| PodSpec::new(name).namespace("shop");
    let application = cluster.pod(&far, shop("echo").label("app", "echo"))?;
    let waypoint_pod = cluster.pod(&far, Waypoint::pod("waypoint-1", "shop", "waypoint"))?;
    // Envoy is its proxy: no ztunnel is on its node.
    let client = cluster.pod(&near, shop("client"))?;
    let certs = CertDir::new(cluster.dir().join("certs"))?;
    certs.add(&application)?;
    certs.add(&waypoint_pod)?;
    let mut ztunnel = Ztunnel::run(&far, Ztunnel::with_files(&cluster, &far, &certs))?;
    ztunnel.ready()?;
    let program = Waypoint::without_certificates(&cluster, &waypoint_pod);
    let waypoint = Waypoint::run(program.arg("--certs").arg(certs.path()))?;
    waypoint.ready(&waypoint_pod)?;
    let _app = serve(&application, "app", 8080)?;
    let envoy = Envoy::client_of(&client, &certs, &waypoint_pod, "10.96.0.10:80")?;
    let answer = Ask::get(Envoy::PLAIN.parse()?, "/hello").from(&client)?;
    ensure!(answer.status == 200 && answer.header("x-pod") == Some("echo"), "{answer:?}");
    let seen = answer.seen()?;
    ensure!(seen.headers.contains_key("x-request-id"), "past the waypoint: {seen:?}");
    // Requests of many connections at a time share Envoy's tunnels.
    let body = "x".repeat(100_000);
    let post = format!(
        "POST /many HTTP/1.1\r\nHost: echo\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let wires = (0..30).map(|_| {
        let mut wire = Wire::open(&client, Envoy::PLAIN.parse().map_err(std::io::Error::other)?)?;
        wire.say(&post)?;
        Ok(wire)
    });
    for wire in wires.collect::<std::io::Result<Vec<_>>>()?.iter_mut() {
        let answer = wire.answer("POST")?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    ensure!(envoy.stat("cluster.tunnel.upstream_cx_total")? < 10, "a tunnel each");
    let line = eventually(SOON, "the request is told", || {
        let log = waypoint.log();
        log.into_iter().find(|line| line["path"] == "/hello").ok_or("it is not")
    })?;
    ensure!(line["src.identity"] == client.identity(), "{line}");
    // What is asked of another identity or place is not served.
    ensure!(line["dst.service"] == "echo.shop.svc.cluster.local", "{line}");
    Ok(())
}
