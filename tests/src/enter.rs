//! Puts the calling program into namespaces of its own, by running it again before any thread starts.
//! Four processes: the outer one (waits, writes the id maps), `enter` (makes the namespaces), `init`
//! (first process of the process namespace, mounts and reaps), and the program itself.
//! Invariants: when any of them ends, everything inside is killed by the kernel; files live on a
//! file system in memory that only the inside sees, so nothing is left behind, even after SIGKILL.
//! The caller keeps its own user id inside, with every capability over the new namespaces.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::OnceLock;

use anyhow::Context as _;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Resource, Rlimit, Signal, WaitOptions};
use rustix::thread::{CapabilitySet, UnshareFlags};

use crate::{netlink, role, sys};

/// The running program, whatever has been mounted over its path.
pub const SELF: &str = "/proc/self/exe";
/// Says that a process of ours plays a role instead of the program.
pub const ROLE: &str = "__role";
/// `init` could not mount a fresh `/proc` (containers that mask theirs): try without.
const NO_PROC: u8 = 91;
/// This machine lets nobody make namespaces.
const NO_NAMESPACES: u8 = 78;

static WORK: OnceLock<PathBuf> = OnceLock::new();

/// Where the inside keeps its files: in memory, and seen by nobody else.
///
/// # Panics
/// Outside of the namespaces.
#[must_use]
pub fn work() -> &'static Path {
    WORK.get().expect("only programs that came through `enter::main` have a work directory")
}

/// Whether the inside has a process namespace too; where `/proc` is masked it has none.
#[must_use]
pub fn has_own_processes() -> bool {
    rustix::process::getppid() == Some(rustix::process::Pid::INIT)
}

/// The `main` of every program that links the harness: plays a role, or enters and calls `run`.
pub fn main(run: fn(Vec<String>) -> ExitCode) -> ExitCode {
    main_with(std::env::args().skip(1).collect(), run)
}

/// The same with other arguments than those of the process.
pub fn main_with(mut args: Vec<String>, run: fn(Vec<String>) -> ExitCode) -> ExitCode {
    if args.first().map(String::as_str) != Some(ROLE) {
        return report(outer(&args));
    }
    args.remove(0);
    let name = if args.is_empty() { String::new() } else { args.remove(0) };
    match name.as_str() {
        "enter" => report(enter(&args)),
        "init" => report(init(&args)),
        "inside" => report(inside(args, run)),
        _ => role::play(&name, args),
    }
}

fn report(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// A command that runs this program again in a role.
pub(crate) fn role_command(role: &str) -> Command {
    let mut command = Command::new(SELF);
    command.arg(ROLE).arg(role);
    command
}

fn outer(args: &[String]) -> anyhow::Result<ExitCode> {
    for own_processes in [true, false] {
        let (from_inside, tell_outside) = rustix::pipe::pipe()?;
        let (from_outside, tell_inside) = rustix::pipe::pipe()?;
        for fd in [&from_inside, &tell_inside] {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
        }
        let mut child = role_command("enter")
            .arg(tell_outside.as_raw_fd().to_string())
            .arg(from_outside.as_raw_fd().to_string())
            .arg(own_processes.to_string())
            .args(args)
            .spawn()
            .context("running this program again")?;
        drop((tell_outside, from_outside));
        outlive_interrupts()?;
        let mut word = [0];
        let mut from_inside = File::from(from_inside);
        if from_inside.read(&mut word)? == 1 {
            if word == *b"u" {
                write_maps(child.id()).context("mapping the caller into its user namespace")?;
            }
            File::from(tell_inside).write_all(b"k")?;
        }
        let code = code_of(child.wait()?);
        if code != NO_PROC {
            return Ok(ExitCode::from(code));
        }
    }
    anyhow::bail!("cannot prepare namespaces on this machine")
}

/// The caller becomes itself. Root keeps the other users of the machine too, because some servers
/// (PostgreSQL) refuse to run as root.
fn write_maps(pid: u32) -> anyhow::Result<()> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    if rustix::process::geteuid().is_root()
        && write_map(&process.join("uid_map"), &identity("uid_map")?).is_ok()
        && write_map(&process.join("gid_map"), &identity("gid_map")?).is_ok()
    {
        return Ok(());
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // user_namespaces(7): an unprivileged process may map its group only after giving up setgroups.
    fs::write(process.join("setgroups"), "deny")?;
    if fs::read_to_string(process.join("uid_map"))?.is_empty() {
        write_map(&process.join("uid_map"), &format!("{uid} {uid} 1\n"))?;
    }
    write_map(&process.join("gid_map"), &format!("{gid} {gid} 1\n"))
}

/// The caller's own map, each id onto itself.
fn identity(which: &str) -> anyhow::Result<String> {
    let own = fs::read_to_string(Path::new("/proc/self").join(which))?;
    let mut map = String::new();
    for line in own.lines() {
        let mut words = line.split_whitespace();
        if let (Some(first), Some(_), Some(count)) = (words.next(), words.next(), words.next()) {
            map.push_str(&format!("{first} {first} {count}\n"));
        }
    }
    Ok(map)
}

/// A map takes one write and no more.
fn write_map(path: &Path, map: &str) -> anyhow::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all(map.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

fn enter(args: &[String]) -> anyhow::Result<ExitCode> {
    let [tell, hear, own_processes, rest @ ..] = args else {
        anyhow::bail!("not to be called by hand")
    };
    let (mut tell, mut hear) = (adopt(tell)?, adopt(hear)?);
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWIPC;
    if own_processes == "true" {
        flags |= UnshareFlags::NEWPID;
    }
    let word = match sys::unshare(flags | UnshareFlags::NEWUSER) {
        Ok(()) => b"u",
        // No user namespaces here, but real root needs none.
        Err(_) if sys::unshare(flags).is_ok() => b"n",
        Err(error) => {
            eprintln!(
                "cannot make a user namespace: {error}\n\
                 This machine forbids them (kernel.unprivileged_userns_clone, \
                 user.max_user_namespaces, or a container's profile); run as root, or allow them."
            );
            return Ok(ExitCode::from(NO_NAMESPACES));
        }
    };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    tell.write_all(word)?;
    hear.read_exact(&mut [0]).context("waiting for the id maps")?;
    drop((tell, hear));
    keep_capabilities().context("keeping capabilities over exec")?;
    let mut init = role_command("init").arg(own_processes).args(rest).spawn()?;
    outlive_interrupts()?;
    Ok(ExitCode::from(code_of(init.wait()?)))
}

#[expect(unsafe_code, reason = "a descriptor number on the command line becomes an owner")]
fn adopt(number: &str) -> anyhow::Result<File> {
    let number: RawFd = number.parse()?;
    // SAFETY: the outer process opened this descriptor for this process alone and says so by argument.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(number) }))
}

fn init(args: &[String]) -> anyhow::Result<ExitCode> {
    let [own_processes, rest @ ..] = args else { anyhow::bail!("not to be called by hand") };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("making mounts private")?;
    let first = own_processes == "true";
    if first {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        if rustix::mount::mount("proc", "/proc", "proc", flags, None).is_err() {
            return Ok(ExitCode::from(NO_PROC));
        }
    } else {
        rustix::process::set_child_subreaper(rustix::process::getpid().into())?;
    }
    let work = mount_work()?;
    if !Path::new("/etc/hosts").exists() {
        add_hosts(&work).context("this machine has no /etc/hosts, and none can be added")?;
    }
    let program = role_command("inside").arg(&work).args(rest).spawn()?;
    outlive_interrupts()?;
    let code = reap_until(&program)?;
    if !first {
        end_the_rest();
    }
    Ok(ExitCode::from(code))
}

/// A file system in memory over a directory that every machine has and nobody here needs.
fn mount_work() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    let exe = fs::read_link(SELF).unwrap_or_default();
    let free = |path: &Path| path.is_dir() && !here.starts_with(path) && !exe.starts_with(path);
    let place = ["/srv", "/media", "/mnt", "/opt", "/tmp"].map(PathBuf::from);
    let place = place.into_iter().find(|path| free(path)).context("no place to mount over")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("culvert", &place, "tmpfs", flags, Some(c"mode=0755"))
        .with_context(|| format!("mounting over {}", place.display()))?;
    Ok(place)
}

/// An empty `/etc/hosts` beside what `/etc` has, for pods to see theirs over it.
fn add_hosts(work: &Path) -> anyhow::Result<()> {
    let beside = work.join("etc");
    fs::create_dir(&beside)?;
    File::create(beside.join("hosts"))?;
    let layers = CString::new(format!("lowerdir={}:/etc", beside.display()))?;
    let flags = MountFlags::NOSUID;
    rustix::mount::mount("culvert", "/etc", "overlay", flags, Some(layers.as_c_str()))?;
    Ok(())
}

/// Ambient capabilities outlive the exec of an ordinary user; root has them anyway.
fn keep_capabilities() -> anyhow::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.inheritable = sets.permitted;
    rustix::thread::set_capabilities(None, sets)?;
    for capability in sets.permitted.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

fn reap_until(program: &Child) -> anyhow::Result<u8> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() as u32 == program.id() => {
                let code = status.exit_status().map(|code| code as u8);
                return Ok(code.unwrap_or_else(|| {
                    128 + status.terminating_signal().unwrap_or_default() as u8
                }));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Without a process namespace the descendants are found and killed one by one.
fn end_the_rest() {
    let own = rustix::process::getpid();
    let children = format!("/proc/self/task/{}/children", own.as_raw_nonzero());
    while let Ok(list) = fs::read_to_string(&children) {
        if list.trim().is_empty() {
            return;
        }
        for pid in list.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::empty()) {}
    }
}

fn inside(mut args: Vec<String>, run: fn(Vec<String>) -> ExitCode) -> anyhow::Result<ExitCode> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    anyhow::ensure!(!args.is_empty(), "not to be called by hand");
    let work = PathBuf::from(args.remove(0));
    WORK.set(work).expect("set once, here");
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let whole = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, whole)?;
    netlink::Link::open()?.up("lo").context("bringing up the loopback interface")?;
    Ok(run(args))
}

/// An interrupt from the terminal goes to the program inside, which decides; we only wait for it.
fn outlive_interrupts() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _guard = runtime.enter();
    let _ = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    Ok(())
}

fn code_of(status: std::process::ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let signal = || status.signal().map_or(1, |signal| 128 + signal);
    status.code().unwrap_or_else(signal) as u8
}

/// The capabilities that a program in a pod loses: with them it could leave the mesh by itself.
pub(crate) const FORBIDDEN_IN_PODS: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_PTRACE);

/// Whether `program` can be found on this machine.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    postgresql()
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(usual)
        .map(|dir| dir.join(AsRef::<OsStr>::as_ref(program)))
        .find(|file| file.is_file())
}

/// Where Debian keeps the programs of its PostgreSQL versions, the newest first. What it has on
/// `PATH` instead are scripts that look for a running server.
fn postgresql() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = versions.map(|version| version.path()).collect();
    versions.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        std::cmp::Reverse(name.parse::<u32>().unwrap_or_default())
    });
    versions.into_iter().map(|version| version.join("bin")).collect()
}

/// Brings an error of the operating system into the words of this crate.
pub(crate) fn os(error: rustix::io::Errno) -> io::Error {
    io::Error::from(error)
}
