//! Programs that run in a namespace of the cluster: started, watched, ended by process id.
//! Output goes to files, so that a chatty program never waits for us.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, Signal};
use serde::de::DeserializeOwned;

use crate::enter::{ROLE, SELF, role_command};
use crate::eventually::eventually;

/// Makes the names of output files unique.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// Linux shows times to programs in hundredths of a second, whatever it counts in itself
/// (`USER_HZ`, all architectures that Rust has a server for).
const MS_PER_TICK: u64 = 10;

/// Where and with what rights a program runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// Path of the network namespace.
    pub namespace: PathBuf,
    /// Shown to the program as `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// Directory for output.
    pub logs: PathBuf,
    /// Whether the program loses the capabilities by which a pod could leave the mesh.
    pub confined: bool,
}

/// The variable that names a folder with the product's own programs.
pub const PROGRAMS: &str = "CULVERT_PROGRAMS";

fn shipped(role: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os(PROGRAMS)?);
    matches!(role, "ztunnel" | "waypoint").then(|| folder.join(role))
}

/// A program that is going to run somewhere.
#[must_use]
pub struct Program {
    command: Command,
    name: String,
    logs: PathBuf,
}

impl Program {
    /// `program` is a path, a name found on `PATH`, or a role of this program (`Program::role`).
    pub fn new(place: &Place, program: &str) -> Self {
        let found = crate::enter::find(program).unwrap_or_else(|| PathBuf::from(program));
        Self::launch(place, program, &found, None)
    }

    /// A role of the harness itself; where `CULVERT_PROGRAMS` names a folder, its `ztunnel` and
    /// `waypoint` are run and not those that are linked into this program.
    pub fn role(place: &Place, role: &str) -> Self {
        if let Some(program) = shipped(role) {
            return Self::launch(place, role, &program, None);
        }
        Self::launch(place, role, Path::new(SELF), None).arg(ROLE).arg(role)
    }

    /// Like `new`, as another user of this machine where that is possible (the caller is root).
    pub fn as_user(place: &Place, program: &Path, user: &str) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::launch(place, &name, program, Some(user))
    }

    fn launch(place: &Place, name: &str, program: &Path, user: Option<&str>) -> Self {
        let mut command = role_command("exec");
        command.arg("--net").arg(&place.namespace);
        if let Some(hosts) = &place.hosts {
            command.arg("--hosts").arg(hosts);
        }
        if let Some(user) = user {
            command.arg("--user").arg(user);
        }
        if place.confined {
            command.arg("--confined");
        }
        command.arg("--").arg(program);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = name.rsplit('/').next().unwrap_or(name);
        Self { command, name: format!("{name}-{number}"), logs: place.logs.clone() }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Starts it. It ends at the latest when the returned value is dropped.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(mut self) -> anyhow::Result<Running> {
        fs::create_dir_all(&self.logs)?;
        let out = self.logs.join(format!("{}.out", self.name));
        let err = self.logs.join(format!("{}.err", self.name));
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        let stdin = child.stdin.take();
        Ok(Running { child, stdin, name: self.name, out, err })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It cannot be started, or does not end within `deadline`.
    pub fn output(self, deadline: Duration) -> anyhow::Result<Output> {
        let mut running = self.start()?;
        drop(running.stdin.take());
        let status = running.wait(deadline)?;
        Ok(Output { status, out: running.stdout(), err: running.stderr() })
    }

    /// Runs it to its end, which must be a good one; gives its standard output.
    ///
    /// # Errors
    /// As `output`, or it ends with a failure.
    pub fn success(self, deadline: Duration) -> anyhow::Result<String> {
        let name = self.name.clone();
        let output = self.output(deadline)?;
        let Output { status, out, err } = &output;
        anyhow::ensure!(status.success(), "{name} ended with {status}: {out}{err}");
        Ok(output.out)
    }
}

/// What a program left when it ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A running program, killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    name: String,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// What it complained about so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// The file that takes its standard output.
    #[must_use]
    pub fn stdout_file(&self) -> &Path {
        &self.out
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The kernel does not know.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until its output has a line with `word`, and gives that line.
    ///
    /// # Errors
    /// It ended, or `deadline` passed.
    pub fn line_with(&mut self, word: &str, deadline: Duration) -> anyhow::Result<String> {
        let what = format!("{} says {word:?}", self.name);
        let (out, err) = (self.out.clone(), self.err.clone());
        let line = eventually(deadline, &what, || {
            let text = fs::read_to_string(&out).unwrap_or_default();
            let line = text.lines().find(|line| line.contains(word)).map(ToOwned::to_owned);
            match (line, self.child.try_wait()) {
                (Some(line), _) => Ok(Ok(line)),
                (None, Ok(Some(status))) => Ok(Err(status)),
                (None, _) => Err("no such line"),
            }
        })?;
        line.map_err(|status| {
            let complaint = fs::read_to_string(&err).unwrap_or_default();
            anyhow::anyhow!("{what}: ended with {status}: {complaint}")
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs after `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        let result = eventually(deadline, &what, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        result.with_context(|| format!("{}{}", self.stdout(), self.stderr()))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).map_err(crate::enter::os)
    }

    /// Lets it hold no more than `limit` descriptors from now on; those that it has, it keeps.
    ///
    /// # Errors
    /// It is gone.
    pub fn limit_descriptors(&self, limit: usize) -> io::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        let limit = Some(limit as u64);
        let limit = Rlimit { current: limit, maximum: limit };
        rustix::process::prlimit(Some(pid), Resource::Nofile, limit).map_err(crate::enter::os)?;
        Ok(())
    }

    /// Ends a role by closing its input, and reads the result that it prints at its end.
    ///
    /// # Errors
    /// It does not end, ends with a failure, or prints something else.
    pub fn finish<T: DeserializeOwned>(mut self, deadline: Duration) -> anyhow::Result<T> {
        drop(self.stdin.take());
        self.result(deadline)
    }

    /// Waits for the end of a role that ends by itself, and reads its result.
    ///
    /// # Errors
    /// As `finish`.
    pub fn result<T: DeserializeOwned>(&mut self, deadline: Duration) -> anyhow::Result<T> {
        let status = self.wait(deadline)?;
        let out = self.stdout();
        anyhow::ensure!(status.success(), "{} ended with {status}: {}", self.name, self.stderr());
        let last = out.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| format!("result of {}: {last:?}", self.name))
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        let started = Instant::now();
        let _ = self.child.kill();
        let _ = self.child.wait();
        debug_assert!(started.elapsed() < Duration::from_secs(60), "{} would not die", self.name);
    }

    /// Processor time that it used so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // proc_pid_stat(5): the name is in parentheses and may hold anything; after it the state
        // is field 3, and 14 and 15 are the times in user and kernel mode.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
        let ticks: u64 = fields.skip(11).take(2).filter_map(|own| own.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * MS_PER_TICK))
    }

    /// The descriptors that it holds now.
    ///
    /// # Errors
    /// It is gone.
    pub fn descriptors(&self) -> io::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
