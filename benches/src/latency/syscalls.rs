//! Counting system calls. Only real root may, and inside the namespaces nobody is; so a thread of
//! the outermost process does it with `perf stat`, asked from within over a socket.
//!
//! ```text
//!  within  ── "start PID PID\n" ──►  outside: finds these processes in its own numbers, attaches
//!          ◄── "ok\n" ──
//!          ── "stop\n" ──►
//!          ◄── {"all": 1234, "futex": 5, ...} ──
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use harness::enter::find;
use harness::eventually::eventually;
use rustix::process::{Pid, Signal, kill_process};

const ALL: &str = "raw_syscalls:sys_enter";
/// The calls that are told apart, as far as the kernel has them.
const KINDS: [&str; 12] = [
    "epoll_pwait",
    "epoll_wait",
    "futex",
    "read",
    "readv",
    "recvfrom",
    "recvmsg",
    "sendmsg",
    "sendto",
    "splice",
    "write",
    "writev",
];
const SOON: Duration = Duration::from_secs(10);

/// The part that runs outside of the namespaces, for whoever connects first. The folder of its
/// socket goes then, or when this is dropped.
pub(super) struct Outside {
    folder: PathBuf,
}

impl Outside {
    /// Offers to count, if this machine and this user can.
    ///
    /// # Errors
    /// Why not, for the report.
    pub(super) fn offer() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let perf = find("perf").ok_or("needs perf on PATH")?;
        let tried = Command::new(&perf).args(["stat", "-e", ALL, "true"]).output();
        if !tried.is_ok_and(|output| output.status.success()) {
            return Err("needs perf with the right to trace system calls".to_owned());
        }
        let begin = || {
            let name = format!("culvert-latency-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            fs::DirBuilder::new().mode(0o700).create(&folder)?;
            let outside = Self { folder };
            let listener = UnixListener::bind(outside.socket())?;
            let folder = outside.folder.clone();
            std::thread::spawn(move || {
                let asker = listener.accept();
                // Nobody else is to ask, and nothing stays if we are killed.
                let _ = fs::remove_dir_all(folder);
                // Whoever asked sees the end of the connection.
                let _ = asker.map(|(stream, _)| serve(stream, &perf));
            });
            Ok(outside)
        };
        begin().map_err(|error: io::Error| error.to_string())
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("counter")
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn serve(stream: UnixStream, perf: &Path) -> anyhow::Result<()> {
    let asker = rustix::net::sockopt::socket_peercred(&stream)?.pid;
    let mut answer = stream.try_clone()?;
    let mut counting = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let mut words = line.split(' ');
        match words.next() {
            Some("start") => {
                let pids: Vec<u32> = words.map(str::parse).collect::<Result<_, _>>()?;
                for pid in outer_pids(asker, &pids)? {
                    counting.push(attach(perf, pid)?);
                }
                answer.write_all(b"ok\n")?;
            }
            _ => {
                let mut counts = BTreeMap::<String, u64>::new();
                for child in counting.drain(..) {
                    for (name, count) in detach(child)? {
                        *counts.entry(name).or_default() += count;
                    }
                }
                writeln!(answer, "{}", serde_json::to_string(&counts)?)?;
            }
        }
    }
    Ok(())
}

/// The numbers out here of processes that have `pids` in the process namespace of `asker`.
fn outer_pids(asker: Pid, pids: &[u32]) -> anyhow::Result<Vec<u32>> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid"));
    let wanted = namespace(&asker.as_raw_nonzero().to_string())?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(outer) = name.parse() else { continue };
        let status = fs::read_to_string(format!("/proc/{name}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let inner = numbers.and_then(|numbers| numbers.split_whitespace().last()?.parse().ok());
        let asked = inner.is_some_and(|inner: u32| pids.contains(&inner));
        if asked && namespace(&name).is_ok_and(|namespace| namespace == wanted) {
            found.push(outer);
        }
    }
    anyhow::ensure!(found.len() == pids.len(), "{} of {} processes", found.len(), pids.len());
    Ok(found)
}

fn attach(perf: &Path, pid: u32) -> anyhow::Result<Child> {
    let known = |kind: &&&str| {
        let events = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"];
        events
            .iter()
            .any(|events| Path::new(&format!("{events}/syscalls/sys_enter_{kind}")).is_dir())
    };
    let kinds = KINDS.iter().filter(known).map(|kind| format!("syscalls:sys_enter_{kind}"));
    let events: Vec<String> = std::iter::once(ALL.to_owned()).chain(kinds).collect();
    let child = Command::new(perf)
        .args(["stat", "--field-separator", ",", "--event", &events.join(",")])
        .args(["--pid", &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // perf does not say when it is attached; its descriptors do.
    let descriptors = format!("/proc/{}/fd", child.id());
    eventually(SOON, "perf is attached", || {
        let links = fs::read_dir(&descriptors)?.flatten();
        let events = links
            .filter_map(|link| fs::read_link(link.path()).ok())
            .filter(|target| target.to_string_lossy().contains("perf_event"));
        if events.count() >= KINDS.len() { Ok(()) } else { Err(io::Error::other("not yet")) }
    })?;
    Ok(child)
}

fn detach(mut child: Child) -> anyhow::Result<Vec<(String, u64)>> {
    kill_process(Pid::from_child(&child), Signal::INT)?;
    let mut said = String::new();
    child.stderr.take().context("perf says nothing")?.read_to_string(&mut said)?;
    child.wait()?;
    Ok(said.lines().filter_map(count).collect())
}

/// A line of `perf stat`: count, unit, event, and more.
fn count(line: &str) -> Option<(String, u64)> {
    let mut fields = line.split(',');
    let count = fields.next()?.parse().ok()?;
    let event = fields.nth(1)?;
    let name = if event == ALL { "all" } else { event.strip_prefix("syscalls:sys_enter_")? };
    Some((name.to_owned(), count))
}

/// The part within: asks the one outside.
pub(super) struct Counter {
    asked: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Counter {
    /// Connects to the part outside.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn connect(socket: &Path) -> io::Result<Self> {
        let asked = UnixStream::connect(socket)?;
        Ok(Self { answers: BufReader::new(asked.try_clone()?), asked })
    }

    /// Begins to count what `pids` do.
    ///
    /// # Errors
    /// The part outside cannot.
    pub(super) fn start(&mut self, pids: &[u32]) -> anyhow::Result<()> {
        let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
        let answer = self.ask(&format!("start {}\n", pids.join(" ")))?;
        anyhow::ensure!(answer == "ok\n", "perf could not attach");
        Ok(())
    }

    /// Ends counting, gives the calls of all processes together.
    ///
    /// # Errors
    /// The part outside cannot.
    pub(super) fn stop(&mut self) -> anyhow::Result<BTreeMap<String, u64>> {
        Ok(serde_json::from_str(&self.ask("stop\n")?)?)
    }

    fn ask(&mut self, question: &str) -> anyhow::Result<String> {
        self.asked.write_all(question.as_bytes())?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_perf_are_read() {
        let line = "8421,,raw_syscalls:sys_enter,1003125,100.00,,";
        assert_eq!(count(line), Some(("all".to_owned(), 8421)));
        let line = "12,,syscalls:sys_enter_futex,1003125,100.00,,";
        assert_eq!(count(line), Some(("futex".to_owned(), 12)));
        assert_eq!(count("<not counted>,,syscalls:sys_enter_futex,0,0.00,,"), None);
        assert_eq!(count(""), None);
    }
}
