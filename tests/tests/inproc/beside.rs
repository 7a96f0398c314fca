//! Two processes beside each other, as during an upgrade: who answers on which port, and when.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use harness::eventually::becomes;
use harness::pod::PodSpec;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::log::{Log, SOON};
use super::scene::{Scene, exchange};
use super::suite::cases;
use super::world::{Proxy, World, connect};

cases! {
    "beside::ports_and_socket_are_handed_over": [DRAINED] => handed_over;
    "beside::a_successor_that_ends_leaves_the_ports_to_the_first": [] => taken_back;
}

/// Enough for both to be met: the kernel draws one of two listeners for each connection.
const TRIES: usize = 60;

/// Two that differ by the version of Istio that they say they stand in for.
async fn both(log: &Log) -> anyhow::Result<(Scene, Proxy)> {
    let world = World::new(log)?;
    let server = world.pod(PodSpec::new("server"))?;
    let scene = Scene::with_server(world, server, &version("old")).await?;
    let second = scene.world.start(&version("new"))?;
    // The socket has one owner: who came last.
    becomes(SOON, "the second has the socket", async || match on_socket(&scene).await {
        Ok(version) if version == "new" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    Ok((scene, second))
}

fn version(name: &str) -> [(&'static str, &str); 1] {
    [("ISTIO_META_ISTIO_VERSION", name)]
}

/// Who answers administration on the socket.
async fn on_socket(scene: &Scene) -> anyhow::Result<String> {
    let path: PathBuf = scene.world.cluster.dir().join("state/admin.sock");
    let mut stream = UnixStream::connect(path).await?;
    let request = b"GET /config_dump HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, dump) = answer.split_once("\r\n\r\n").context("no answer")?;
    version_in(dump)
}

fn version_in(dump: &str) -> anyhow::Result<String> {
    let dump: Value = serde_json::from_str(dump)?;
    Ok(dump["version"]["istioVersion"].as_str().context("no version")?.to_owned())
}

/// Who answers on each port, asked many times.
struct Answers {
    admin: BTreeSet<String>,
    stats: BTreeSet<String>,
    ready: BTreeSet<u16>,
}

fn ask(scene: &Scene) -> anyhow::Result<Answers> {
    let get = |port: u16, path: &str| -> io::Result<(u16, String)> {
        scene.world.near.get(&format!("127.0.0.1:{port}"), path)
    };
    let mut answers = Answers { admin: [].into(), stats: [].into(), ready: [].into() };
    for _ in 0..TRIES {
        answers.admin.insert(version_in(&get(15000, "/config_dump")?.1)?);
        let (_, metrics) = get(15020, "/metrics")?;
        let build = metrics.lines().find_map(|line| line.strip_prefix("istio_build{"));
        let tag = build.and_then(|labels| labels.split("tag=\"").nth(1)?.split('"').next());
        answers.stats.insert(tag.context("no istio_build")?.to_owned());
        answers.ready.insert(get(15021, "/healthz/ready")?.0);
    }
    Ok(answers)
}

fn names(expected: &[&str]) -> BTreeSet<String> {
    expected.iter().map(|name| (*name).to_owned()).collect()
}

async fn handed_over(log: Log) -> anyhow::Result<()> {
    let (mut scene, second) = both(&log).await?;
    second.ready()?;
    let answers = ask(&scene)?;
    ensure!(answers.admin == names(&["new", "old"]), "{:?}", answers.admin);
    ensure!(answers.stats == names(&["new", "old"]), "{:?}", answers.stats);
    ensure!(answers.ready == BTreeSet::from([200]), "{:?}", answers.ready);
    ensure!(on_socket(&scene).await? == "new");
    scene.proxy.end()?;
    let answers = ask(&scene)?;
    ensure!(answers.admin == names(&["new"]), "{:?}", answers.admin);
    ensure!(answers.stats == names(&["new"]), "{:?}", answers.stats);
    ensure!(answers.ready == BTreeSet::from([200]), "{:?}", answers.ready);
    // The one that went has not taken the socket of the one that came.
    ensure!(on_socket(&scene).await? == "new");
    exchange(&mut connect(&scene.client, scene.echo()).await?).await
}

async fn taken_back(log: Log) -> anyhow::Result<()> {
    let (mut scene, mut second) = both(&log).await?;
    second.end()?;
    let answers = ask(&scene)?;
    ensure!(answers.admin == names(&["old"]), "{:?}", answers.admin);
    ensure!(answers.stats == names(&["old"]), "{:?}", answers.stats);
    ensure!(answers.ready == BTreeSet::from([200]), "{:?}", answers.ready);
    scene.is_unharmed().await
}
