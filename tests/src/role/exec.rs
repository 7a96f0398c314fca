//! Moves into a pod and becomes another program there.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use rustix::mount::MountPropagationFlags;
use rustix::thread::{CapabilitySet, UnshareFlags};

use crate::enter::FORBIDDEN_IN_PODS;
use crate::{netns, sys};

/// Where to go and what to become.
#[derive(Debug, clap::Parser)]
pub struct Args {
    /// Network namespace.
    #[arg(long)]
    net: PathBuf,
    /// File shown as /etc/hosts.
    #[arg(long)]
    hosts: Option<PathBuf>,
    /// User to become, if the caller is root.
    #[arg(long)]
    user: Option<String>,
    /// Give up what could lead out of the pod.
    #[arg(long)]
    confined: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Never returns when all goes well.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(None)?;
    let namespace = File::open(&args.net).context("opening the namespace")?;
    netns::enter(namespace.as_fd()).context("entering the namespace")?;
    drop(namespace);
    if let Some(hosts) = &args.hosts {
        show_hosts(hosts)?;
    }
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]);
    if let Some(user) = args.user.as_deref().filter(|_| rustix::process::geteuid().is_root()) {
        let (uid, gid) = ids_of(user)?;
        command.uid(uid).gid(gid);
    }
    if args.confined {
        confine().context("giving up capabilities")?;
    }
    // Whoever asks a pod to end means the program, not a group.
    Err(command.exec()).with_context(|| format!("running {:?}", args.command[0]))
}

fn show_hosts(hosts: &Path) -> anyhow::Result<()> {
    sys::unshare(UnshareFlags::NEWNS).context("a mount namespace for the pod")?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::mount::mount_bind(hosts, "/etc/hosts").context("showing the hosts file")?;
    Ok(())
}

/// Gone for good: also from the bounding set, so that no later exec brings them back.
fn confine() -> anyhow::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    rustix::thread::clear_ambient_capability_set()?;
    if sets.effective.contains(CapabilitySet::SETPCAP) {
        for capability in FORBIDDEN_IN_PODS.iter() {
            rustix::thread::remove_capability_from_bounding_set(capability)?;
        }
    }
    sets.inheritable = CapabilitySet::empty();
    sets.effective.remove(FORBIDDEN_IN_PODS);
    sets.permitted.remove(FORBIDDEN_IN_PODS);
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}

/// User and group id from the machine's own list.
fn ids_of(user: &str) -> anyhow::Result<(u32, u32)> {
    let list = std::fs::read_to_string("/etc/passwd")?;
    let fields = list.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = fields.filter(|fields| fields.len() > 3).find(|fields| fields[0] == user);
    let entry = entry.with_context(|| format!("there is no user {user}"))?;
    Ok((entry[2].parse()?, entry[3].parse()?))
}
