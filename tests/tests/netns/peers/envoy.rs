//! Envoy as the client of our inbound, and as the server of our outbound.

use anyhow::{Context as _, ensure};
use harness::peers::Envoy;

use super::goaway;
use super::line::{self, Line};
use super::mesh::{Mesh, Ours, PORT, SOON};
use super::scenes::{self, Side};
use crate::netns::suite::Case;

const NEEDS: &[&str] = &["envoy"];

pub(crate) const CASES: &[Case] = &[
    ("peers::envoy_client_with_a_thousand_streams", NEEDS, || client(a_thousand)),
    ("peers::envoy_client_with_a_gigabyte_each_way", NEEDS, || client(a_gigabyte)),
    ("peers::envoy_client_half_closes_either_way", NEEDS, || client(scenes::half_closes)),
    ("peers::envoy_client_resets_either_way", NEEDS, || client(scenes::resets)),
    ("peers::envoy_client_outlives_our_restart", NEEDS, client_outlives_our_restart),
    ("peers::envoy_server_with_a_thousand_streams", NEEDS, || server(a_thousand)),
    ("peers::envoy_server_with_a_gigabyte_each_way", NEEDS, || server(a_gigabyte)),
    ("peers::envoy_server_half_closes", NEEDS, server_half_closes),
    ("peers::envoy_server_resets", NEEDS, server_resets),
    ("peers::envoy_server_drains_and_quits", NEEDS, server_drains),
    ("peers::envoy_relay_half_closes_either_way", NEEDS, || relay(scenes::half_closes)),
    ("peers::envoy_relay_resets_either_way", NEEDS, || relay(scenes::resets)),
];

/// Envoy in front of our inbound.
fn client(scene: impl AsyncFnOnce(&Line<'_>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mesh = Mesh::new(Ours::Inbound)?;
    let _envoy = Envoy::client(&mesh.client, &mesh.certs, &mesh.server, PORT)?;
    let opened = mesh.ends(Envoy::PLAIN.parse()?).play(scene)?;
    mesh.all_over(opened)
}

/// Envoy behind our outbound; it ends the tunnel itself.
fn server(scene: impl AsyncFnOnce(&Line<'_>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mesh = Mesh::new(Ours::Outbound)?;
    let envoy = Envoy::server(&mesh.server, &mesh.certs, &mesh.client)?;
    let opened = mesh.ends(mesh.application()).play(scene)?;
    let seen = envoy.stat("http.tunnel.downstream_rq_total")?;
    ensure!(seen == opened as u64, "Envoy saw {seen} streams of {opened} connections");
    mesh.all_over(opened)
}

/// Envoy behind our outbound; it passes the tunnel on.
fn relay(scene: impl AsyncFnOnce(&Line<'_>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mesh = Mesh::new(Ours::Outbound)?;
    let _envoy = Envoy::relay(&mesh.server, &mesh.certs, &mesh.client)?;
    let mut exit = mesh.server.role("exit").args(["--listen", Envoy::EXIT]).start()?;
    exit.line_with("listening", SOON)?;
    let opened = mesh.ends(mesh.application()).play(scene)?;
    mesh.all_over(opened)
}

fn client_outlives_our_restart() -> anyhow::Result<()> {
    let mut mesh = Mesh::new(Ours::Inbound)?;
    let envoy = Envoy::client(&mesh.client, &mesh.certs, &mesh.server, PORT)?;
    goaway::we_restart(&mesh, Envoy::PLAIN.parse()?, Side::Client)?;
    let told = envoy.stat("cluster.tunnel.upstream_cx_close_notify")?;
    ensure!(told > 0, "Envoy was not told to go");
    drop(envoy);
    mesh.ztunnel_ends()
}

/// Envoy cuts off an application that ends first, so there is no other direction to go on.
fn server_half_closes() -> anyhow::Result<()> {
    server(async |line| {
        scenes::client_ends_first(line).await?;
        scenes::application_leaves(line).await
    })
}

/// Envoy ends an application's connection in order when the stream was reset, too. That it was is in
/// its statistics.
fn server_resets() -> anyhow::Result<()> {
    let mesh = Mesh::new(Ours::Outbound)?;
    let envoy = Envoy::server(&mesh.server, &mesh.certs, &mesh.client)?;
    let resets = || envoy.stat("http.tunnel.downstream_rq_rx_reset");
    let opened = mesh.ends(mesh.application()).play(async |line| {
        scenes::beside(line, Side::Client, async {
            for cuts in 1..=2 {
                line::over(&mut scenes::cut_by(Side::Client, line).await?).await?;
                ensure!(resets()? == cuts, "{} of {cuts} resets", resets()?);
            }
            for _ in 0..2 {
                scenes::cut(&mut scenes::cut_by(Side::Application, line).await?).await?;
            }
            Ok(())
        })
        .await
    })?;
    mesh.all_over(opened)
}

/// Envoy says GOAWAY on every tunnel with its next answer. When it has gone for good, connections end
/// instead of waiting.
fn server_drains() -> anyhow::Result<()> {
    let mesh = Mesh::new(Ours::Outbound)?;
    let envoy = Envoy::server(&mesh.server, &mesh.certs, &mesh.client)?;
    let opened = mesh.ends(mesh.application()).play(async |line| {
        let drain = || envoy.order("/drain_listeners?graceful&skip_exit");
        let (mut client, _server) = goaway::peer_drains(line, Side::Client, drain).await?;
        let tunnels = envoy.stat("http.tunnel.downstream_cx_total")?;
        ensure!(tunnels > 2, "{tunnels} tunnels");
        envoy.order("/quitquitquit")?;
        scenes::cut(&mut client).await.context("the old stream")?;
        ensure!(line.attempt().await?.is_none(), "a stream to nobody was served");
        Ok(())
    })?;
    mesh.all_over(opened)
}

async fn a_thousand(line: &Line<'_>) -> anyhow::Result<()> {
    scenes::a_thousand(line, Side::Client).await
}

async fn a_gigabyte(line: &Line<'_>) -> anyhow::Result<()> {
    scenes::a_gigabyte(line, Side::Client).await
}
