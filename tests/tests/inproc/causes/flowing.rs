//! While bytes flow: what ends a connection that stood.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use harness::eventually::becomes;
use harness::netlink::Link;
use harness::pod::PodSpec;
use http::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use ztunnel::outcome::Outcome;

use crate::inproc::log::{Log, SOON};
use crate::inproc::peer::{accept, stand_in};
use crate::inproc::scene::{Scene, echo, exchange};
use crate::inproc::suite::cases;
use crate::inproc::world::{World, connect, identity, listen};

cases! {
    "flowing::a_policy_ends_what_it_denies": [POLICY_CHANGED] => policy_changes;
    "flowing::a_connection_that_the_application_never_read_is_told": [UNDELIVERED] => undelivered;
    "flowing::a_socket_that_fails_is_told": [SOCKET_FAILED] => socket_fails;
    "flowing::a_tunnel_that_breaks_is_told": [STREAM_LOST] => tunnel_breaks;
    "flowing::a_connection_that_outlives_the_deadline_is_cut": [DRAINED] => drained;
}

/// The other side is gone: a reset, or an end.
async fn ended(stream: &mut TcpStream) -> anyhow::Result<()> {
    let read = timeout(SOON, stream.read(&mut [0; 64])).await.context("still open")?;
    ensure!(!matches!(read, Ok(1..)), "{read:?}");
    Ok(())
}

async fn policy_changes(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let thief = world.pod(PodSpec::new("thief"))?;
    let mut scene = Scene::start(world).await?;
    let mut open = connect(&thief, scene.echo()).await?;
    exchange(&mut open).await?;
    let rules =
        "  - from:\n    - source:\n        principals: [\"cluster.local/ns/default/sa/thief\"]\n";
    scene.world.cluster.mesh().policy("no-thief", "server", "DENY", rules)?;
    ended(&mut open).await?;
    log.tells(Outcome::POLICY_CHANGED, "connection closed due to policy change").await?;
    scene.is_unharmed().await
}

async fn undelivered(log: Log) -> anyhow::Result<()> {
    let mut scene = Scene::start(World::new(&log)?).await?;
    let listener = listen(&scene.server, 81)?;
    let to = SocketAddr::new(scene.server.ip(), 81);
    let mut open = connect(&scene.client, to).await?;
    let (taken, _) = listener.accept().await?;
    // Earlier the reset would meet a connection that is not made yet.
    becomes(SOON, "the proxy has the connection", async || {
        let (_, dump) = scene.world.near.get("127.0.0.1:15000", "/config_dump")?;
        let dump: serde_json::Value = serde_json::from_str(&dump)?;
        let inbound = &dump["workloadState"]["Kubernetes//Pod/default/server"]["connections"];
        let inbound = inbound["inbound"].to_string();
        ensure!(inbound.contains(&format!("\"originalDst\":\"{to}\"")), "{inbound}");
        anyhow::Ok(())
    })
    .await?;
    taken.set_zero_linger()?;
    drop(taken);
    ended(&mut open).await?;
    let message = "closed by the peer";
    for direction in ["inbound", "outbound"] {
        let direction = format!("direction=\"{direction}\"");
        log.line(&["cause=\"UNDELIVERED\"", &direction]).await?;
    }
    log.line(&["cause=\"UNDELIVERED\"", message]).await?;
    scene.is_unharmed().await
}

async fn socket_fails(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let gone = world.far_pod(PodSpec::new("gone").outside())?;
    let mut scene = Scene::start(world).await?;
    // The kernel gives up on a peer after a moment instead of a quarter of an hour.
    scene.client.netns().set("ipv4/tcp_retries2", "1")?;
    echo(listen(&gone, 80)?);
    let mut open = connect(&scene.client, SocketAddr::new(gone.ip(), 80)).await?;
    exchange(&mut open).await?;
    gone.netns().run(|| Link::open()?.remove("eth0"))?;
    open.write_all(b"anybody?").await?;
    ended(&mut open).await?;
    log.tells(Outcome::SOCKET_FAILED, "io error: ").await?;
    scene.is_unharmed().await
}

async fn tunnel_breaks(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let far = world.far_pod(PodSpec::new("far"))?;
    let mut scene = Scene::start(world).await?;
    let certificate = scene.world.ca.issue(&identity(&far)?);
    stand_in(&far, async move |stream| {
        let mut connection = h2::server::handshake(accept(&certificate, stream).await?).await?;
        let request = connection.accept().await.context("no request")?;
        let (request, mut respond) = request?;
        let _answer = respond.send_response(Response::new(()), false)?;
        // The tunnel stands until its first bytes.
        let mut body = request.into_body();
        tokio::select! {
            _ = body.data() => {}
            _ = std::future::poll_fn(|cx| connection.poll_closed(cx)) => {}
        }
        Ok(())
    })?;
    let mut open = connect(&scene.client, SocketAddr::new(far.ip(), 80)).await?;
    open.write_all(b"hello").await?;
    ended(&mut open).await?;
    log.tells(Outcome::STREAM_LOST, "h2 failed: tunnel connection ended").await?;
    scene.is_unharmed().await
}

async fn drained(log: Log) -> anyhow::Result<()> {
    let mut scene = Scene::start(World::new(&log)?).await?;
    let mut open = connect(&scene.client, scene.echo()).await?;
    exchange(&mut open).await?;
    scene.proxy.begin_to_end();
    ended(&mut open).await?;
    log.tells(Outcome::DRAINED, "connection closed due to connection drain").await?;
    scene.proxy.end()
}
