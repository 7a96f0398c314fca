//! nghttp2, in its proxy nghttpx, as the server of our outbound.

use anyhow::{Context as _, ensure};
use harness::peers::Nghttpx;
use rustix::process::Signal;

use super::line::{self, Line};
use super::mesh::{Mesh, Ours, SOON};
use super::scenes::{self, Side};
use crate::netns::suite::Case;

const NEEDS: &[&str] = &["nghttpx"];

pub(crate) const CASES: &[Case] = &[
    ("peers::nghttpx_with_a_thousand_streams", NEEDS, || play(a_thousand)),
    ("peers::nghttpx_with_a_gigabyte_each_way", NEEDS, || play(a_gigabyte)),
    ("peers::nghttpx_ends_and_resets", NEEDS, || play(ends_and_resets)),
    ("peers::nghttpx_quits_in_order", NEEDS, quits),
];

/// nghttpx behind our outbound.
fn play(scene: impl AsyncFnOnce(&Line<'_>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mesh = Mesh::new(Ours::Outbound)?;
    let mut nghttpx = Nghttpx::start(&mesh.server, &mesh.certs)?;
    let opened = mesh.ends(mesh.application()).play(scene);
    let opened = opened.with_context(|| nghttpx.process().stderr())?;
    mesh.all_over(opened)
}

/// GOAWAY without anybody to take over: the open stream goes on, new ones end instead of waiting.
fn quits() -> anyhow::Result<()> {
    let mesh = Mesh::new(Ours::Outbound)?;
    let mut nghttpx = Nghttpx::start(&mesh.server, &mesh.certs)?;
    let opened = mesh.ends(mesh.application()).play(async |line| {
        let mut old = line.pair().await?;
        scenes::exchange(&mut old).await?;
        nghttpx.process().signal(Signal::QUIT)?;
        let mut served = 0;
        while line.attempt().await?.is_some() {
            served += 1;
            ensure!(served < 50, "still served after {served} streams");
        }
        scenes::exchange(&mut old).await.context("the old stream")?;
        scenes::part(old, Side::Application).await.context("the end of the old stream")
    })?;
    mesh.all_over(opened)?;
    let ended = nghttpx.process().wait(SOON)?;
    ensure!(ended.success(), "nghttpx ended with {ended}");
    Ok(())
}

/// nghttpx takes a stream of CONNECT for upgraded: it passes the client's end on only after the
/// application's, and a reset by the application as an end. What is left to see: both ends in that
/// order, and a reset by the client.
async fn ends_and_resets(line: &Line<'_>) -> anyhow::Result<()> {
    scenes::beside(line, Side::Application, async {
        for _ in 0..3 {
            scenes::cut(&mut scenes::cut_by(Side::Client, line).await?).await?;
            line::over(&mut scenes::cut_by(Side::Application, line).await?).await?;
            let mut pair = line.pair().await?;
            scenes::exchange(&mut pair).await?;
            scenes::part(pair, Side::Application).await?;
        }
        Ok(())
    })
    .await
}

async fn a_thousand(line: &Line<'_>) -> anyhow::Result<()> {
    scenes::a_thousand(line, Side::Application).await
}

async fn a_gigabyte(line: &Line<'_>) -> anyhow::Result<()> {
    scenes::a_gigabyte(line, Side::Application).await
}
