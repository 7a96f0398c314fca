//! nghttp2, in Node.js, as the client of our inbound and as the server of our outbound.

use anyhow::{Context as _, ensure};
use harness::peers::Node;
use rustix::process::Signal;

use super::goaway;
use super::line::Line;
use super::mesh::{Mesh, Ours, PORT, SOON};
use super::scenes::{self, Side};
use crate::netns::suite::Case;

const NEEDS: &[&str] = &["node"];

pub(crate) const CASES: &[Case] = &[
    ("peers::nghttp2_client_with_a_thousand_streams", NEEDS, || client(a_thousand)),
    ("peers::nghttp2_client_with_a_gigabyte_each_way", NEEDS, || client(a_gigabyte)),
    ("peers::nghttp2_client_half_closes_either_way", NEEDS, || client(scenes::half_closes)),
    ("peers::nghttp2_client_resets_either_way", NEEDS, || client(scenes::resets)),
    ("peers::nghttp2_client_outlives_our_restart", NEEDS, client_outlives_our_restart),
    ("peers::nghttp2_server_with_a_thousand_streams", NEEDS, || server(a_thousand)),
    ("peers::nghttp2_server_with_a_gigabyte_each_way", NEEDS, || server(a_gigabyte)),
    ("peers::nghttp2_server_half_closes_either_way", NEEDS, || server(scenes::half_closes)),
    ("peers::nghttp2_server_resets_either_way", NEEDS, || server(scenes::resets)),
    ("peers::nghttp2_server_drains", NEEDS, server_drains),
];

/// In front of our inbound.
fn client(scene: impl AsyncFnOnce(&Line<'_>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mesh = Mesh::new(Ours::Inbound)?;
    let mut node = Node::client(&mesh.client, &mesh.certs, &mesh.server, PORT)?;
    let opened = mesh.ends(Node::PLAIN.parse()?).play(scene);
    let opened = opened.with_context(|| node.process().stderr())?;
    mesh.all_over(opened)
}

/// Behind our outbound.
fn server(scene: impl AsyncFnOnce(&Line<'_>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mesh = Mesh::new(Ours::Outbound)?;
    let mut node = Node::server(&mesh.server, &mesh.certs, &mesh.client)?;
    let opened = mesh.ends(mesh.application()).play(scene);
    let opened = opened.with_context(|| node.process().stderr())?;
    mesh.all_over(opened)
}

fn client_outlives_our_restart() -> anyhow::Result<()> {
    let mut mesh = Mesh::new(Ours::Inbound)?;
    let mut node = Node::client(&mesh.client, &mesh.certs, &mesh.server, PORT)?;
    goaway::we_restart(&mesh, Node::PLAIN.parse()?, Side::Client)?;
    node.process().line_with("told to go", SOON)?;
    mesh.ztunnel_ends()
}

fn server_drains() -> anyhow::Result<()> {
    let mesh = Mesh::new(Ours::Outbound)?;
    let mut node = Node::server(&mesh.server, &mesh.certs, &mesh.client)?;
    let opened = mesh.ends(mesh.application()).play(async |line| {
        let drain = || {
            node.process().signal(Signal::USR2)?;
            node.process().line_with("goes", SOON)?;
            Ok(())
        };
        let old = goaway::peer_drains(line, Side::Client, drain).await?;
        scenes::part(old, Side::Client).await.context("the end of the old stream")
    })?;
    let tunnels = node.process().stdout().matches("a tunnel").count();
    ensure!(tunnels > 1, "{tunnels} tunnels");
    mesh.all_over(opened)
}

async fn a_thousand(line: &Line<'_>) -> anyhow::Result<()> {
    scenes::a_thousand(line, Side::Client).await
}

async fn a_gigabyte(line: &Line<'_>) -> anyhow::Result<()> {
    scenes::a_gigabyte(line, Side::Client).await
}
