//! Failures that a mesh directory cannot describe, and a mesh from elsewhere can.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use harness::eventually::becomes;
use http::{HeaderMap, StatusCode};
use shared::mesh::{
    AppTunnel, AppTunnelProtocol, Change, GatewayAddress, GatewayDestination, Service, Uid,
    Workload, sample,
};
use shared::tls::server_name;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use ztunnel::node::Config;
use ztunnel::outcome::Outcome;

use crate::inproc::flows::world::{TestPod, World, service};
use crate::inproc::log::{Log, SOON};
use crate::inproc::peer::{Answer, TUNNEL, ask};
use crate::inproc::scene::{self, exchange};
use crate::inproc::suite::cases;

cases! {
    "flows::a_pod_that_the_mesh_does_not_know_reaches_nobody": [SOURCE_UNKNOWN] => unknown_source;
    "flows::a_pod_that_the_mesh_does_not_know_takes_nobody":
        [WORKLOAD_UNKNOWN, PEER_UNAVAILABLE] => unknown_workload;
    "flows::a_pod_that_has_left_the_mesh_says_so_at_once_and_is_left_out":
        [POD_GONE] => left_the_mesh;
    "flows::a_port_on_which_nobody_listens_is_left_out_at_once":
        [APPLICATION_CONNECT_FAILED] => nobody_listens;
    "flows::a_gateway_that_is_not_in_the_mesh_is_told": [GATEWAY_UNKNOWN] => unknown_gateway;
    "flows::a_gateway_without_instances_is_told": [GATEWAY_UNHEALTHY] => idle_gateway;
    "flows::a_meshed_workload_without_an_address_is_told": [ADDRESS_MISSING] => no_address;
    "flows::a_service_without_an_address_cannot_be_announced":
        [SERVICE_ADDRESS_MISSING] => no_announcement;
    "flows::a_policy_that_is_not_here_allows_nothing": [POLICY_UNKNOWN] => unknown_policy;
}

/// The application's connection is cut for this reason.
async fn fails(
    (log, mut socket): (&Log, TcpStream),
    outcome: Outcome,
    message: &str,
) -> anyhow::Result<()> {
    let read = timeout(SOON, socket.read(&mut [0])).await?;
    ensure!(!matches!(read, Ok(1..)), "{read:?}");
    log.tells(outcome, message).await?;
    Ok(())
}

/// New pods are waited for, but not for long.
fn impatient(log: &Log) -> anyhow::Result<World> {
    let start_patience = Duration::from_millis(50);
    World::with(log, Config { start_patience, ..Config::default() })
}

async fn unknown_source(log: Log) -> anyhow::Result<()> {
    let world = impatient(&log)?;
    let (client, server) = (world.pod("client", 1)?, world.served("server", 2).await?);
    let socket = world.connect(&client, server.echo().await?).await?;
    let message = "unknown source: team/client";
    fails((&log, socket), Outcome::SOURCE_UNKNOWN, message).await
}

async fn unknown_workload(log: Log) -> anyhow::Result<()> {
    let world = impatient(&log)?;
    let (client, server) = (world.served("client", 1).await?, world.pod("server", 2)?);
    world.listen(&server).await?;
    // The mesh knows the address, and somebody else at it.
    world.apply([Workload { uid: Uid("somebody".into()), ..server.workload() }.into()]);
    let socket = world.connect(&client, server.echo().await?).await?;
    let message = "http status: 503 (WORKLOAD_UNKNOWN)";
    fails((&log, socket), Outcome::PEER_UNAVAILABLE, message).await?;
    let message = "failed to fetch information about local workload: team/server";
    log.tells(Outcome::WORKLOAD_UNKNOWN, message).await?;
    Ok(())
}

/// Connections of `client` to the service `shop` all reach an application, and sooner or later one of
/// them has found that nobody is at this port of this endpoint.
async fn finds_out(world: &World, client: &TestPod, gone: (&Uid, u16)) -> anyhow::Result<()> {
    let is_left_out = || world.part.loads.is_ejected(gone.0, gone.1, Instant::now());
    for _ in 0..100 {
        let mut socket = world.connect(client, (world.ip(9), 80).into()).await?;
        exchange(&mut socket).await?;
        if is_left_out() {
            return Ok(());
        }
    }
    bail!("100 connections, and it is not left out")
}

async fn left_the_mesh(log: Log) -> anyhow::Result<()> {
    // Nobody would wait so long.
    let start_patience = Duration::from_secs(3_600);
    let world = World::with(&log, Config { start_patience, ..Config::default() })?;
    let (client, stays) = (world.served("client", 1).await?, world.served("stays", 2).await?);
    let leaves = world.served("leaves", 3).await?;
    let (echo, other) = (stays.echo().await?, leaves.echo().await?);
    exchange(&mut world.connect(&client, other).await?).await?;
    // The client's side does not know yet.
    let late = Uid("late".into());
    let known = Workload { uid: late.clone(), ..leaves.behind("shop", &[(80, other.port())]) };
    world.apply([
        Change::RemoveWorkload(leaves.workload().uid),
        service("shop", world.ip(9)).into(),
        stays.behind("shop", &[(80, echo.port())]).into(),
        known.into(),
    ]);
    finds_out(&world, &client, (&late, other.port())).await?;
    ensure!(world.part.loads.is_ejected(&late, 1, Instant::now()), "another port of it is not");
    log.tells(Outcome::POD_GONE, "pod team/leaves has left the mesh").await?;
    Ok(())
}

async fn nobody_listens(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, stays) = (world.served("client", 1).await?, world.served("stays", 2).await?);
    let stopped = world.served("stopped", 3).await?;
    let echo = stays.echo().await?;
    let (listener, closed) = stopped.application().await?;
    drop(listener);
    world.apply([
        service("shop", world.ip(9)).into(),
        stays.behind("shop", &[(80, echo.port())]).into(),
        stopped.behind("shop", &[(80, closed.port())]).into(),
    ]);
    let uid = stopped.workload().uid;
    finds_out(&world, &client, (&uid, closed.port())).await?;
    ensure!(!world.part.loads.is_ejected(&uid, 1, Instant::now()), "other ports may be well");
    let message = "connection failed: Connection refused";
    log.tells(Outcome::APPLICATION_CONNECT_FAILED, message).await?;
    // Whoever listens again is found again.
    let listener = TcpListener::bind(closed).await?;
    scene::echo(listener);
    becomes(SOON, "it is in again", async || {
        finds_out(&world, &client, (&uid, closed.port())).await.err().context("still left out")?;
        anyhow::Ok(())
    })
    .await
}

/// An endpoint of `shop` on another network, behind the gateway `gate`.
fn remote(server: &TestPod) -> Workload {
    let gate = GatewayDestination::Hostname(sample::service_key("gate", "team"));
    let gate = GatewayAddress { destination: gate, hbone_mtls_port: TUNNEL };
    Workload {
        network: "elsewhere".into(),
        network_gateway: Some(Arc::new(gate)),
        ..server.behind("shop", &[(80, 80)])
    }
}

async fn unknown_gateway(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, server) = (world.served("client", 1).await?, world.pod("server", 2)?);
    world.apply([service("shop", world.ip(9)).into(), remote(&server).into()]);
    let socket = world.connect(&client, (world.ip(9), 80).into()).await?;
    let message = "unknown network gateway: team/gate.team.svc.cluster.local";
    fails((&log, socket), Outcome::GATEWAY_UNKNOWN, message).await
}

async fn idle_gateway(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, server) = (world.served("client", 1).await?, world.pod("server", 2)?);
    let gate = service("gate", world.ip(8));
    world.apply([service("shop", world.ip(9)).into(), gate.into(), remote(&server).into()]);
    let socket = world.connect(&client, (world.ip(9), 80).into()).await?;
    let message = "team/gate.team.svc.cluster.local has no healthy instance";
    fails((&log, socket), Outcome::GATEWAY_UNHEALTHY, message).await
}

async fn no_address(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, server) = (world.served("client", 1).await?, world.pod("server", 2)?);
    let nameable = Workload {
        addresses: Box::default(),
        hostname: Some("server.test".into()),
        ..server.behind("shop", &[(80, 80)])
    };
    world.apply([service("shop", world.ip(9)).into(), nameable.into()]);
    let socket = world.connect(&client, (world.ip(9), 80).into()).await?;
    let message = "workload Kubernetes//Pod/team/server has no address";
    fails((&log, socket), Outcome::ADDRESS_MISSING, message).await
}

/// What `server` answers when `client` asks it for `authority`.
async fn answer(
    world: &World,
    (client, server): (&TestPod, &TestPod),
    authority: &str,
) -> anyhow::Result<Answer> {
    let certificate = world.ca.issue(&client.pod.identity);
    let config = certificate.client_config(std::slice::from_ref(&server.pod.identity));
    let stream = TcpStream::connect((server.ip, TUNNEL)).await?;
    let stream = TlsConnector::from(config).connect(server_name(), stream).await?;
    ask(stream, authority, HeaderMap::new()).await
}

async fn no_announcement(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, server) = (world.served("client", 1).await?, world.served("server", 2).await?);
    let app_tunnel = Some(AppTunnel { protocol: AppTunnelProtocol::Proxy, port: Some(80) });
    let announced = Workload { app_tunnel, ..server.behind("shop", &[(80, 80)]) };
    let nowhere = Service { vips: Box::default(), ..service("shop", world.ip(9)) };
    world.apply([nowhere.into(), announced.into()]);
    let authority = "shop.team.svc.cluster.local:80";
    let answer = answer(&world, (&client, &server), authority).await?;
    ensure!(answer.status == StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    ensure!(answer.cause.as_deref() == Some("SERVICE_ADDRESS_MISSING"), "{answer:?}");
    let message = "service shop.team.svc.cluster.local has no address";
    log.tells(Outcome::SERVICE_ADDRESS_MISSING, message).await?;
    Ok(())
}

async fn unknown_policy(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, server) = (world.served("client", 1).await?, world.served("server", 2).await?);
    let policies = [sample::policy_key("later", "team")].into();
    world.apply([Workload { policies, ..server.workload() }.into()]);
    let authority = server.echo().await?.to_string();
    let answer = answer(&world, (&client, &server), &authority).await?;
    ensure!(answer.status == StatusCode::UNAUTHORIZED, "{answer:?}");
    ensure!(answer.cause.as_deref() == Some("POLICY_UNKNOWN"), "{answer:?}");
    let message = "policy team/later is referenced but not known";
    log.tells(Outcome::POLICY_UNKNOWN, message).await?;
    Ok(())
}
