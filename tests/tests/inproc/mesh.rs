//! Bad files in the mesh directory of a running proxy: each is told with file, line, object, field
//! and reason, and costs no traffic.

use anyhow::{Context as _, ensure};
use harness::eventually::eventually;
use harness::pod::{Pod, PodSpec};
use serde_json::Value;

use super::log::{Log, SOON};
use super::scene::Scene;
use super::suite::cases;
use super::world::World;

cases! {
    "mesh::bad_files_are_told_and_cost_no_traffic": [] => bad_files;
    "mesh::a_bad_edit_keeps_the_last_good_version_in_force": [] => bad_edits;
    "mesh::a_bad_file_at_the_start_keeps_the_node_unready": [] => bad_start;
}

/// What is said about a file: line (`None`: whichever), object, field, cause, and words of the
/// reason.
type Expected<'a> = (Option<u64>, &'a str, &'a str, &'a str, &'a str);

fn verdicts(scene: &Scene) -> anyhow::Result<Vec<Value>> {
    let (_, dump) = scene.world.near.get("127.0.0.1:15000", "/config_dump")?;
    let dump: Value = serde_json::from_str(&dump)?;
    Ok(dump["verdicts"].as_array().context("no verdicts")?.clone())
}

/// Waits until `/config_dump` has this verdict.
fn told(scene: &Scene, file: &str, expected: Expected<'_>) -> anyhow::Result<()> {
    let (line, object, field, cause, reason) = expected;
    eventually(SOON, &format!("a verdict on {file}: {expected:?}"), || {
        let verdicts = verdicts(scene)?;
        let found = verdicts.iter().any(|verdict| {
            verdict["file"] == file
                && line.is_none_or(|line| verdict["line"] == line)
                && verdict["object"] == object
                && verdict["field"] == field
                && verdict["cause"] == cause
                && verdict["reason"].as_str().is_some_and(|text| text.contains(reason))
        });
        ensure!(found, "{verdicts:?}");
        anyhow::Ok(())
    })
}

/// Waits until nothing is said about `file` any more.
fn forgiven(scene: &Scene, file: &str) -> anyhow::Result<()> {
    eventually(SOON, &format!("no verdict on {file}"), || {
        let verdicts = verdicts(scene)?;
        ensure!(verdicts.iter().all(|verdict| verdict["file"] != file), "{verdicts:?}");
        anyhow::Ok(())
    })
}

/// Files that are bad from their first version on.
const BAD: [(&str, Expected<'static>); 7] = [
    ("kind: [Pod\n", (Some(2), "", "", "unreadable", "its objects are absent")),
    ("\u{0}\u{1}", (Some(1), "", "", "unreadable", "its objects are absent")),
    (
        "apiVersion: v9\nkind: Wobble\nmetadata: {name: x}\n",
        (Some(1), "Wobble/x", "kind", "unknown", ""),
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: zoo}\nspec: {nodename: near}\n",
        (Some(4), "Pod/default/zoo", "spec.nodename", "unknown", ""),
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: zoo}\nspec: {nodeName: [near]}\n",
        (Some(4), "Pod/default/zoo", "spec.nodeName", "invalid", ""),
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: zoo}\nspec: {nodeName: near}\n\
         status: {podIP: 10.1.0.2}\n",
        (Some(1), "Pod/default/zoo", "status.podIPs", "shadowed", "belongs to Pod/default/server"),
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: zoo}\nspec: {clusterIP: 10.96.0.1, \
         ports: [{port: 80}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: ant}\nspec: \
         {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n",
        (
            Some(1),
            "Service/default/zoo",
            "spec.clusterIPs",
            "shadowed",
            "belongs to Service/default/ant",
        ),
    ),
];

async fn bad_files(log: Log) -> anyhow::Result<()> {
    let mut scene = Scene::start(World::new(&log)?).await?;
    ensure!(scene.server.ip().to_string() == "10.1.0.2", "the duplicate is of this address");
    for (text, expected) in BAD {
        let mesh = scene.world.cluster.mesh();
        mesh.write("bad.yaml", text)?;
        told(&scene, "bad.yaml", expected)?;
        mesh.remove("bad.yaml")?;
        forgiven(&scene, "bad.yaml")?;
        scene.is_unharmed().await.with_context(|| format!("after {text:?}"))?;
    }
    Ok(())
}

/// Edits of the server's own file, with what is said about them.
fn edits(server: &Pod) -> Vec<(String, Expected<'static>)> {
    let good = server.yaml();
    // Written without the rename, and read in between: within a text. Between two fields nobody
    // could tell.
    let half = good[..good.len() - "ue\"\n".len()].to_owned();
    let object = "Pod/default/server";
    let stays = "the last good version of this object stays in force";
    vec![
        (format!("{good}]\n"), (None, "", "", "unreadable", "stay in force")),
        (half, (None, "", "", "unreadable", "stay in force")),
        (good.replace("podIP: 10.1.0.2", "podIP: ten"), (None, object, "", "invalid", stays)),
        (good.replace("nodeName: near", "nodeName: {}"), (None, object, "", "invalid", stays)),
    ]
}

async fn bad_edits(log: Log) -> anyhow::Result<()> {
    let mut scene = Scene::start(World::new(&log)?).await?;
    let file = scene.server.file();
    for (text, expected) in edits(&scene.server) {
        scene.world.cluster.mesh().write(&file, &text)?;
        told(&scene, &file, expected)?;
        scene.is_unharmed().await.with_context(|| format!("after {text}"))?;
        scene.world.announce(&scene.server)?;
        forgiven(&scene, &file)?;
    }
    scene.is_unharmed().await
}

async fn bad_start(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let server = world.pod(PodSpec::new("server"))?;
    world.cluster.mesh().write(&server.file(), "kind: [Pod\n")?;
    let mut proxy = world.start(&[])?;
    eventually(SOON, "readiness says why", || {
        let (status, body) = world.near.get("127.0.0.1:15021", "/healthz/ready")?;
        let expected = "not ready, pending: mesh directory (1 unreadable files)\n";
        ensure!(status == 500 && body == expected, "{status}: {body}");
        anyhow::Ok(())
    })?;
    world.announce(&server)?;
    proxy.ready()?;
    proxy.end()
}
