//! The mesh directory: a folder of Kubernetes YAML, read again when it changes.
//!
//! ```text
//! start: read, publish          then, on its own thread:
//!   change seen → 100 ms of quiet → read what changed → objects → compile → publish the difference
//! ```
//!
//! Invariants: what is published comes from one reading in which no file changed; a file that is no
//! YAML keeps the objects it had; a directory that cannot be read keeps everything.
//! Not here: what objects mean (`feed::object`, `feed::compile`).

mod read;
mod state;
mod watching;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use tokio::sync::watch;

use crate::feed::compile::{Compiled, Options};
use crate::feed::dir::read::Content;
use crate::feed::dir::state::State;
use crate::feed::dir::watching::{Signal, Watching};
use crate::feed::{LocalPod, Verdict};
use crate::mesh::Writer;

/// Why a mesh directory cannot be served at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there, is no directory, or may not be read.
    #[error("read mesh directory {}: {source}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No thread for it.
    #[error("start the thread of the mesh directory: {0}")]
    Thread(#[source] std::io::Error),
}

/// A file of a mesh directory, in memory.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Path relative to the directory.
    pub path: Arc<str>,
    /// What is in it.
    pub text: String,
}

/// What became of the directory's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Files read, good or not.
    pub files: usize,
    /// Objects in force, some of them perhaps in their last good version.
    pub objects: usize,
    /// Files that could not be read or parsed and never were since the start: their objects are
    /// absent, and readiness says so.
    pub absent_files: usize,
}

/// Compiles files as a directory that holds just them. Pure.
pub fn objects(files: &[SourceFile], options: &Options) -> Compiled {
    let contents = files.iter().map(|file| (file.path.clone(), Content::Text(file.text.clone())));
    compiled(options, contents.collect()).0
}

/// Reads and compiles a directory once.
///
/// # Errors
/// [`Error::Directory`] when it cannot be listed.
pub fn check(dir: &Path, options: &Options) -> Result<(Compiled, Status), Error> {
    let contents = read::snapshot(dir, &|_, _| false)
        .map_err(|source| Error::Directory { dir: dir.to_owned(), source })?;
    Ok(compiled(options, contents.files))
}

fn compiled(options: &Options, contents: BTreeMap<Arc<str>, Content>) -> (Compiled, Status) {
    let mut state = State::new(options.clone());
    state.take(contents);
    state.compile()
}

/// A directory that is being served. Dropping it ends its thread; the mesh stays as it is.
#[derive(Debug)]
pub struct Feed {
    local_pods: watch::Receiver<Arc<Vec<LocalPod>>>,
    verdicts: watch::Receiver<Arc<Vec<Verdict>>>,
    status: watch::Receiver<Status>,
    signals: Sender<Signal>,
}

impl Feed {
    /// Reads `dir`, publishes it through `writer`, and keeps publishing what changes.
    ///
    /// # Errors
    /// When the directory cannot be read or there is no thread to be had. Bad files are no error.
    pub fn start(dir: &Path, options: Options, writer: Writer) -> Result<Self, Error> {
        let (signals, received) = channel();
        let (local_pods_tx, local_pods) = watch::channel(Arc::default());
        let (verdicts_tx, verdicts) = watch::channel(Arc::default());
        let (status_tx, status) = watch::channel(Status::default());
        let mut watching = Watching {
            dir: dir.to_owned(),
            state: State::new(options),
            writer,
            local_pods: local_pods_tx,
            verdicts: verdicts_tx,
            status: status_tx,
            stamps: Default::default(),
            is_told: false,
        };
        let notifier = watching::notifier(dir, signals.clone());
        watching
            .publish_aside()
            .map_err(|source| Error::Directory { dir: dir.to_owned(), source })?;
        thread::Builder::new()
            .name("mesh-directory".to_owned())
            .spawn(move || watching.run(&received, notifier))
            .map_err(Error::Thread)?;
        Ok(Self { local_pods, verdicts, status, signals })
    }

    /// The pods of this node. Changes after the mesh did.
    pub fn local_pods(&self) -> watch::Receiver<Arc<Vec<LocalPod>>> {
        self.local_pods.clone()
    }

    /// What is not in force at the moment, and what is remarkable.
    pub fn verdicts(&self) -> Arc<Vec<Verdict>> {
        self.verdicts.borrow().clone()
    }

    /// Wakes when the verdicts change.
    pub fn verdicts_changed(&self) -> watch::Receiver<Arc<Vec<Verdict>>> {
        self.verdicts.clone()
    }

    /// How much of the directory is in force.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // The thread may have ended already.
        let _ = self.signals.send(Signal::Stop);
    }
}

#[cfg(test)]
mod tests;
