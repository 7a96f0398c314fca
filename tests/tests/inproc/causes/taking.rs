//! Taking a connection in: targets, policies and the application of the pod that is called.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use harness::mesh_dir::Service;
use harness::pod::PodSpec;
use http::StatusCode;
use ztunnel::outcome::Outcome;

use crate::inproc::log::Log;
use crate::inproc::scene::{Scene, broken, deaf};
use crate::inproc::suite::cases;
use crate::inproc::wire::{END_HEADERS, HEADERS, RST_STREAM, connect_block, frame, greeting, send};
use crate::inproc::world::World;

cases! {
    "taking::a_service_that_is_not_here_is_told": [SERVICE_UNKNOWN] => unknown_service;
    "taking::a_port_that_the_service_lacks_is_told": [PORT_UNRESOLVED] => unknown_port;
    "taking::the_proxys_own_ports_are_no_target": [PORT_RESERVED] => own_ports;
    "taking::a_caller_that_policy_denies_is_told": [POLICY_DENIED, PEER_DENIED] => denied;
    "taking::a_plaintext_caller_that_policy_denies_is_cut": [POLICY_DENIED] => denied_plaintext;
    "taking::a_pod_that_wants_its_waypoint_takes_nobody_else": [WAYPOINT_REQUIRED] => past_waypoint;
    "taking::an_application_that_refuses_is_told": [APPLICATION_CONNECT_FAILED] => no_application;
    "taking::an_application_that_does_not_answer_is_given_up":
        [APPLICATION_CONNECT_TIMEOUT] => deaf_application;
    "taking::a_caller_that_does_not_wait_is_told": [CLIENT_GONE] => impatient_caller;
}

async fn scene(log: &Log) -> anyhow::Result<Scene> {
    Scene::start(World::new(log)?).await
}

/// The server's proxy answers a request for `authority` with this status, and names the cause.
async fn refused(
    scene: &mut Scene,
    authority: &str,
    (status, outcome): (StatusCode, Outcome),
    message: &str,
) -> anyhow::Result<()> {
    let answer = scene.ask(authority).await?;
    ensure!(answer.status == status, "{answer:?}");
    ensure!(answer.cause.as_deref() == Some(outcome.code()), "{answer:?}");
    scene.world.log.tells(outcome, message).await?;
    scene.is_unharmed().await
}

async fn unknown_service(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let host = "nowhere.default.svc.cluster.local";
    let expected = (StatusCode::SERVICE_UNAVAILABLE, Outcome::SERVICE_UNKNOWN);
    refused(&mut scene, &format!("{host}:80"), expected, &format!("unknown service: {host}")).await
}

async fn unknown_port(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let vip = ["10.96.0.9".parse()?];
    world.cluster.mesh().service(&Service {
        name: "shop",
        namespace: "default",
        addresses: &vip,
        ports: &[(80, 7)],
        app: "server",
    })?;
    let mut scene = Scene::start(world).await?;
    let authority = "shop.default.svc.cluster.local:81";
    let expected = (StatusCode::SERVICE_UNAVAILABLE, Outcome::PORT_UNRESOLVED);
    refused(&mut scene, authority, expected, &format!("no port for {authority}")).await?;
    // The port that it has is no secret.
    let answer = scene.ask("shop.default.svc.cluster.local:80").await?;
    ensure!(answer.status == StatusCode::OK, "{answer:?}");
    Ok(())
}

async fn own_ports(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    for port in [15001, 15006, 15008] {
        let authority = format!("{}:{port}", scene.server.ip());
        let expected = (StatusCode::SERVICE_UNAVAILABLE, Outcome::PORT_RESERVED);
        refused(&mut scene, &authority, expected, "is reserved").await?;
        log.line(&["cause=\"PORT_RESERVED\"", &format!("port {port} is reserved")]).await?;
    }
    broken(&scene.client, SocketAddr::from(([127, 0, 0, 1], 15006))).await?;
    log.line(&["cause=\"PORT_RESERVED\"", "dst.addr=127.0.0.1:15006"]).await?;
    scene.is_unharmed().await
}

/// Denies every connection of `account` to the server.
fn denial(account: &str) -> String {
    format!(
        "  - from:\n    - source:\n        principals: [\"cluster.local/ns/default/sa/{account}\"]\n"
    )
}

async fn denied(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let thief = world.pod(PodSpec::new("thief"))?;
    world.cluster.mesh().policy("no-thief", "server", "DENY", &denial("thief"))?;
    let mut scene = Scene::start(world).await?;
    broken(&thief, scene.echo()).await?;
    let message =
        "connection closed due to policy rejection: explicitly denied by: default/no-thief";
    log.tells(Outcome::POLICY_DENIED, message).await?;
    log.tells(Outcome::PEER_DENIED, "http status: 401 (POLICY_DENIED)").await?;
    scene.is_unharmed().await
}

async fn denied_plaintext(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    world.cluster.mesh().strict("server")?;
    let mut scene = Scene::start(world).await?;
    broken(&scene.outsider, scene.echo()).await?;
    log.tells(Outcome::POLICY_DENIED, "connection closed due to policy rejection").await?;
    scene.is_unharmed().await
}

async fn past_waypoint(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let behind = PodSpec::new("behind").annotation("culvert.dev/require-waypoint", "true");
    let behind = world.pod(behind)?;
    let mut scene = Scene::start(world).await?;
    let to = SocketAddr::new(behind.ip(), 80);
    let message = "only the workload's waypoint may connect";
    scene.fails(to, Outcome::WAYPOINT_REQUIRED, message).await?;
    Ok(())
}

async fn no_application(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let authority = format!("{}:81", scene.server.ip());
    let expected = (StatusCode::SERVICE_UNAVAILABLE, Outcome::APPLICATION_CONNECT_FAILED);
    refused(&mut scene, &authority, expected, "connection failed: Connection refused").await
}

async fn deaf_application(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let _deaf = deaf(&scene.server, 81).await?;
    let authority = format!("{}:81", scene.server.ip());
    let expected = (StatusCode::SERVICE_UNAVAILABLE, Outcome::APPLICATION_CONNECT_TIMEOUT);
    refused(&mut scene, &authority, expected, "connection failed: timed out").await
}

async fn impatient_caller(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let _deaf = deaf(&scene.server, 81).await?;
    let block = connect_block(&format!("{}:81", scene.server.ip()));
    let mut stream = scene.shake().await.context("tls")?;
    let request = frame(HEADERS, END_HEADERS, 1, &block);
    send(&mut stream, &[greeting(), request].concat()).await;
    // RFC 9113 §7: CANCEL.
    send(&mut stream, &frame(RST_STREAM, 0, 1, &8u32.to_be_bytes())).await;
    let message = "client gave up before the application answered";
    log.tells(Outcome::CLIENT_GONE, message).await?;
    scene.is_unharmed().await
}
