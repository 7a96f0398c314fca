//! One side says that it goes: open streams are served to their end, new ones find another way.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use harness::eventually::eventually;
use rustix::process::Signal;
use tokio::net::TcpStream;

use super::line::Line;
use super::mesh::{Mesh, SOON};
use super::scenes::{self, Side};

/// Enough for GOAWAY to arrive between two of them.
const NEW_ONES: usize = 50;

/// A second ztunnel takes over from the first while a peer has a stream open. Afterwards the first
/// has nothing left to do.
pub(super) fn we_restart(mesh: &Mesh, target: SocketAddr, first: Side) -> anyhow::Result<()> {
    let mut second = None;
    let opened = mesh.ends(target).play(async |line| {
        let mut old = line.pair().await?;
        scenes::exchange(&mut old).await?;
        let second = second.insert(mesh.another()?);
        mesh.ztunnel.signal(Signal::TERM)?;
        for number in 0.. {
            ensure!(number < NEW_ONES, "{number} streams, and none by the second process");
            one(line, first).await.with_context(|| format!("new stream {number}"))?;
            if mesh.told_by(second) > 0 {
                break;
            }
        }
        scenes::exchange(&mut old).await.context("the old stream")?;
        scenes::part(old, first).await.context("the end of the old stream")
    })?;
    let second = second.context("there is a second process")?;
    eventually(SOON, "both tell of their connections", || {
        let told = (mesh.told_by(&mesh.ztunnel), mesh.told_by(&second));
        if told.0 + told.1 == opened { Ok(()) } else { Err(format!("{told:?} of {opened}")) }
    })
}

/// The peer behind our outbound drains while a stream is open; gives that one back.
pub(super) async fn peer_drains(
    line: &Line<'_>,
    first: Side,
    drain: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<(TcpStream, TcpStream)> {
    let mut old = line.pair().await?;
    scenes::exchange(&mut old).await?;
    drain()?;
    for number in 0..10 {
        one(line, first).await.with_context(|| format!("new stream {number}"))?;
    }
    scenes::exchange(&mut old).await.context("the old stream")?;
    Ok(old)
}

async fn one(line: &Line<'_>, first: Side) -> anyhow::Result<()> {
    let mut pair = line.pair().await?;
    scenes::exchange(&mut pair).await?;
    scenes::part(pair, first).await
}
