//! State that cannot be kept, and join tokens that do not count: what the operator reads.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::eventually::eventually;
use harness::pod::PodSpec;
use harness::process::{Output, Program};
use harness::proxies::{Authority, Ztunnel};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use super::log::Log;
use super::suite::cases;
use super::world::World;

cases! {
    "state::a_full_disk_keeps_the_proxy_from_starting_and_says_so": [] => full_for_the_proxy;
    "state::a_read_only_disk_keeps_the_proxy_from_starting_and_says_so": [] => fixed_for_the_proxy;
    "state::a_full_disk_keeps_the_authority_from_starting_and_says_so": [] => full_for_the_authority;
    "state::a_read_only_disk_keeps_the_authority_from_starting_and_says_so":
        [] => fixed_for_the_authority;
    "state::a_revoked_join_token_is_told_at_the_node": [] => revoked_token;
    "state::a_join_token_of_another_authority_is_told_at_the_node": [] => foreign_token;
}

const SOON: Duration = Duration::from_secs(30);

/// A small file system of its own.
struct Disk(PathBuf);

impl Disk {
    /// With room for `files` files besides itself, and for 32 KiB.
    fn new(world: &World, files: u32) -> anyhow::Result<Self> {
        let path = world.cluster.dir().join("disk");
        fs::create_dir(&path)?;
        let options = format!("size=32k,nr_inodes={},mode=0700", files + 1);
        let options = std::ffi::CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("disk", &path, "tmpfs", flags, Some(options.as_c_str())).context("mounting")?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// Until there is no room for another byte.
    fn fill(&self) -> anyhow::Result<()> {
        let mut filler = fs::File::create(self.0.join("filler"))?;
        while filler.write(&[0; 512]).is_ok_and(|written| written > 0) {}
        Ok(())
    }

    fn make_room(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.0.join("filler"))?)
    }

    fn fix(&self) -> anyhow::Result<()> {
        Ok(mount_remount(&self.0, MountFlags::RDONLY, "")?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// It ends with code 1, and says this on standard error.
fn says(output: &Output, expected: &[&str]) -> anyhow::Result<()> {
    ensure!(output.status.code() == Some(1), "{output:?}");
    for text in expected {
        ensure!(output.err.contains(text), "no {text:?} in: {}", output.err);
    }
    Ok(())
}

fn proxy(world: &World, state: &Path) -> anyhow::Result<Program> {
    let certs = world.cluster.dir().join("certs");
    let program = world.near.role("ztunnel").args(["run", "--node", "near"]);
    let program = program.arg("--mesh").arg(world.cluster.mesh().path());
    Ok(program.arg("--certs").arg(certs).arg("--state").arg(state))
}

fn authority(world: &World, state: &Path) -> Program {
    let program = world.near.role("ztunnel").args(["ca", "--listen", "127.0.0.1:15012"]);
    program.arg("--mesh").arg(world.cluster.mesh().path()).arg("--state").arg(state)
}

async fn full_for_the_proxy(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let disk = Disk::new(&world, 1)?;
    disk.fill()?;
    let state = disk.path().join("state");
    let output = proxy(&world, &state)?.output(SOON)?;
    let what = format!("ztunnel: use the state directory {} (--state): ", state.display());
    let advice = "free some space there, or give another directory with --state DIR";
    says(&output, &[&what, "No space left on device", advice])?;
    ensure!(!state.exists());
    Ok(())
}

async fn fixed_for_the_proxy(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let disk = Disk::new(&world, 8)?;
    fs::create_dir(disk.path().join("made"))?;
    disk.fix()?;
    for state in ["made", "new"] {
        let state = disk.path().join(state);
        let output = proxy(&world, &state)?.output(SOON)?;
        let what = format!("ztunnel: use the state directory {} (--state): ", state.display());
        let advice = "it is on a read-only file system: give another directory with --state DIR";
        says(&output, &[&what, "Read-only file system", advice])?;
    }
    Ok(())
}

async fn full_for_the_authority(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let disk = Disk::new(&world, 8)?;
    disk.fill()?;
    let what = format!("ztunnel: write {}/root.pem: ", disk.path().display());
    let advice = "free some space there, or give another directory with --state DIR";
    for program in [
        authority(&world, disk.path()),
        world.near.role("ztunnel").args(["ca", "token", "near", "--state"]).arg(disk.path()),
    ] {
        says(&program.output(SOON)?, &[&what, "No space left on device", advice])?;
    }
    // Nothing half-written is left that a later start would take for a root.
    disk.make_room()?;
    let names: Vec<_> = fs::read_dir(disk.path())?.collect();
    ensure!(names.is_empty(), "{names:?}");
    let token = world.near.role("ztunnel").args(["ca", "token", "near", "--state"]);
    let token = token.arg(disk.path()).success(SOON)?;
    ensure!(token.starts_with("culvert1:near:"), "{token}");
    Ok(())
}

async fn fixed_for_the_authority(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let disk = Disk::new(&world, 8)?;
    disk.fix()?;
    let output = authority(&world, disk.path()).output(SOON)?;
    let what = format!("ztunnel: write {}/root.pem: ", disk.path().display());
    let advice = "it is on a read-only file system: give another directory with --state DIR";
    says(&output, &[&what, "Read-only file system", advice])?;
    let state = disk.path().join("new");
    let output = authority(&world, &state).output(SOON)?;
    says(&output, &[&format!("ztunnel: create {}: ", state.display()), advice])
}

async fn revoked_token(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let authority = Authority::start(&world.cluster, &world.near, "1h")?;
    authority.token("near")?;
    let revoke = world.near.role("ztunnel").args(["ca", "revoke", "near", "--state"]);
    let revoked = revoke.arg(world.cluster.dir().join("ca")).success(SOON)?;
    ensure!(revoked == "1 revoked\n", "{revoked}");
    joins_in_vain(&world, &authority, &["authority refused a certificate", "CA_TOKEN"])
}

async fn foreign_token(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let elsewhere = World::new(&log)?;
    let foreign = Authority::start(&elsewhere.cluster, &elsewhere.near, "1h")?;
    let token = foreign.token("near")?;
    let authority = Authority::start(&world.cluster, &world.near, "1h")?;
    fs::copy(token, world.cluster.dir().join("near.token"))?;
    joins_in_vain(
        &world,
        &authority,
        &[
            "ask the certificate authority: ",
            "server does not present the root that the join token names",
        ],
    )
}

/// The node starts, and tells for each connection why its pod has no certificate.
fn joins_in_vain(world: &World, authority: &Authority, words: &[&str]) -> anyhow::Result<()> {
    let client = world.cluster.pod(&world.near, PodSpec::new("client"))?;
    let far = world.far_pod(PodSpec::new("far"))?;
    let ztunnel = Ztunnel::start(&world.cluster, &world.near, authority)?;
    let target = format!("{}:80", far.ip());
    eventually(SOON, "the connection is told", || {
        let answer = client.get(&target, "/");
        ensure!(answer.is_err(), "answered: {answer:?}");
        let told = ztunnel.log().into_iter().find(|line| line["cause"] == "IDENTITY_UNAVAILABLE");
        let told = told.context("no line with the cause")?;
        let error = told["error"].as_str().unwrap_or_default();
        ensure!(error.starts_with("identity error: "), "{error}");
        for word in words {
            ensure!(error.contains(word), "no {word:?} in {error:?}");
        }
        anyhow::Ok(())
    })
    .with_context(|| format!("{:#?}", ztunnel.log()))
}
