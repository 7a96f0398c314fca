//! The thread of a mesh directory: waits for changes, and for quiet after them.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::feed::dir::Status;
use crate::feed::dir::read::{self, Stamp};
use crate::feed::dir::state::State;
use crate::feed::verdict::Cause;
use crate::feed::{LocalPod, Verdict};
use crate::mesh::Writer;

/// Editors and `kubectl` write a file in several steps; these are over when nothing happened for
/// this long.
const QUIET: Duration = Duration::from_millis(100);
/// Quiet periods to wait for at most: a directory that never rests is read in the end.
const PATIENCE: usize = 20;
/// Without notifications (network file systems) a change is seen after this long.
const POLL: Duration = Duration::from_secs(30);
/// The same when there is no notifier at all, because the system's limit is reached.
const POLL_WITHOUT_NOTIFIER: Duration = Duration::from_secs(1);
/// New verdicts that are logged one by one.
const LOGGED: usize = 20;

/// What wakes the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Something in the directory changed.
    Changed,
    /// The feed is gone.
    Stop,
}

/// A directory and where its meaning goes.
#[derive(Debug)]
pub(super) struct Watching {
    pub(super) dir: PathBuf,
    pub(super) state: State,
    pub(super) writer: Writer,
    pub(super) local_pods: watch::Sender<Arc<Vec<LocalPod>>>,
    pub(super) verdicts: watch::Sender<Arc<Vec<Verdict>>>,
    pub(super) status: watch::Sender<Status>,
    pub(super) stamps: BTreeMap<Arc<str>, Stamp>,
    /// What `state` holds is published. A mesh that is the same is not compiled again at every poll.
    pub(super) is_told: bool,
}

/// Starts to send signals for changes below `dir`.
pub(super) fn notifier(dir: &Path, signals: Sender<Signal>) -> Option<RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !is_reading(&event.kind)) {
            // The feed may be gone; its thread ends then.
            let _ = signals.send(Signal::Changed);
        }
    });
    let watching = watcher.and_then(|mut watcher| {
        watcher.watch(dir, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    watching
        .inspect_err(|error| warn!(%error, "no notification of changes; polling every second"))
        .ok()
}

/// Our own reading must not wake us.
fn is_reading(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

impl Watching {
    /// Serves the directory until the feed is gone.
    pub(super) fn run(mut self, signals: &Receiver<Signal>, notifier: Option<RecommendedWatcher>) {
        let poll = if notifier.is_some() { POLL } else { POLL_WITHOUT_NOTIFIER };
        loop {
            match signals.recv_timeout(poll) {
                Ok(Signal::Changed) if !is_quiet(signals) => return,
                Ok(Signal::Changed) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Err(error) = self.publish_aside() {
                self.keep_all(&error);
            }
        }
    }

    /// Reads what changed and publishes what it means, on a thread that ends then. Reading needs many
    /// times the memory of what stays, and an allocator cannot take back what lies between the
    /// pages of a thread that waits for the next change.
    pub(super) fn publish_aside(&mut self) -> io::Result<()> {
        thread::scope(|scope| {
            let reading = thread::Builder::new().name("mesh-reading".to_owned());
            let reading = reading.spawn_scoped(scope, || self.publish())?;
            reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn publish(&mut self) -> io::Result<()> {
        let stamps = std::mem::take(&mut self.stamps);
        let is_known = |path: &str, stamp: &Stamp| stamps.get(path) == Some(stamp);
        let mut snapshot = read::snapshot(&self.dir, &is_known);
        for _ in 0..PATIENCE {
            if snapshot.as_ref().is_ok_and(|snapshot| !snapshot.is_stable) {
                thread::sleep(QUIET);
                snapshot = read::snapshot(&self.dir, &is_known);
            }
        }
        let snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.stamps = stamps;
                return Err(error);
            }
        };
        let differs = self.state.take(snapshot.files);
        self.stamps = snapshot.stamps;
        if self.is_told && !differs {
            return Ok(());
        }
        let (compiled, status) = self.state.compile();
        self.is_told = true;
        let changes = compiled.changes(self.writer.mesh());
        if !changes.is_empty() {
            let (changes, objects) = (changes.len(), status.objects);
            info!(changes, objects, files = status.files, "mesh directory published");
        }
        self.writer.apply(changes);
        let pods = Arc::new(compiled.local_pods);
        self.local_pods.send_if_modified(|old| replace(old, pods));
        self.remark(compiled.verdicts);
        self.status.send_if_modified(|old| replace(old, status));
        Ok(())
    }

    fn remark(&self, verdicts: Vec<Verdict>) {
        let verdicts = Arc::new(verdicts);
        let old = self.verdicts.borrow().clone();
        let known: HashSet<&Verdict> = old.iter().collect();
        let mut new = verdicts.iter().filter(|one| !one.in_force && !known.contains(one));
        for verdict in new.by_ref().take(LOGGED) {
            warn!("{verdict}");
        }
        let more = new.count();
        if more > 0 {
            warn!(more, "more remarks on the mesh directory, see `ztunnel check`");
        }
        self.verdicts.send_if_modified(|old| replace(old, verdicts));
    }

    /// The directory cannot be read: everything stays, with a verdict that says so.
    fn keep_all(&mut self, error: &io::Error) {
        self.is_told = false;
        let lost = Verdict {
            file: "".into(),
            line: 0,
            object: "".into(),
            field: "".into(),
            in_force: false,
            cause: Cause::Unreadable,
            reason: format!("read {}: {error}; all objects stay in force", self.dir.display())
                .into(),
        };
        let mut verdicts = (**self.verdicts.borrow()).clone();
        if !verdicts.contains(&lost) {
            verdicts.push(lost);
            self.remark(verdicts);
        }
    }
}

/// Waits until nothing happens; false when the feed is gone.
fn is_quiet(signals: &Receiver<Signal>) -> bool {
    for _ in 0..PATIENCE * 50 {
        match signals.recv_timeout(QUIET) {
            Ok(Signal::Changed) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    true
}

fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let differs = *old != new;
    *old = new;
    differs
}
