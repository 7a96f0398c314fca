//! Certificates from files: `root-cert.pem` and, per identity,
//! `ns/<namespace>/sa/<service account>/cert-chain.pem` and `key.pem` (design §6, `--certs`).
//!
//! Invariants: nothing outside the directory is ever opened, whatever links are in it; a key that
//! group or others may read is refused; what does not fit together is an error, so the store keeps
//! the old pair.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_util::future::BoxFuture;
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecursiveMode, Watcher as _};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{Authority, Error, SpiffeId, WorkloadCertificate};

/// The largest file that is read. A chain is a few KiB.
const LARGEST_BYTES: u64 = 1 << 20;

/// Changes that come closer together than this are one change.
const QUIET: Duration = Duration::from_millis(100);

/// A directory of certificates, watched for changes.
pub struct Files {
    directory: Arc<OwnedFd>,
    changes: watch::Receiver<u64>,
    /// Ends the watch when dropped.
    _watcher: notify::RecommendedWatcher,
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Public,
    OwnerOnly,
}

impl Files {
    /// Opens `directory` and watches it.
    ///
    /// # Errors
    /// When it cannot be opened or watched.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(directory, flags, Mode::empty())?;
        let (events, received) = mpsc::channel();
        let (sender, changes) = watch::channel(0);
        let mut watcher = notify::recommended_watcher(move |event| {
            // The thread that counts changes may have ended already.
            let _ = events.send(event);
        })
        .map_err(io::Error::other)?;
        watcher.watch(directory, RecursiveMode::Recursive).map_err(io::Error::other)?;
        std::thread::Builder::new()
            .name("certs-watch".into())
            .spawn(move || count_changes(&received, &sender))?;
        Ok(Self { directory: Arc::new(fd), changes, _watcher: watcher })
    }
}

impl Authority for Files {
    fn issue<'a>(&'a self, id: &'a SpiffeId) -> BoxFuture<'a, Result<WorkloadCertificate, Error>> {
        let directory = Arc::clone(&self.directory);
        let id = id.clone();
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || certificate(&directory, &id));
            read.await.unwrap_or(Err(Error::Closed))
        })
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.changes.clone())
    }
}

fn certificate(directory: &OwnedFd, id: &SpiffeId) -> Result<WorkloadCertificate, Error> {
    // Both names are DNS-1123 by type, so they hold neither a slash nor two dots in a row.
    let home = PathBuf::from(format!("ns/{}/sa/{}", id.namespace(), id.service_account()));
    let roots = read(directory, Path::new("root-cert.pem"), Access::Public)?;
    let chain = read(directory, &home.join("cert-chain.pem"), Access::Public)?;
    let key = read(directory, &home.join("key.pem"), Access::OwnerOnly)?;
    WorkloadCertificate::from_pem(&chain, &key, &roots)
        .map_err(|source| Error::Certificate { id: id.clone(), source })
}

fn read(directory: &OwnedFd, path: &Path, access: Access) -> Result<Zeroizing<Vec<u8>>, Error> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve)
        .map_err(io::Error::from)
        .and_then(|fd| read_checked(File::from(fd), access))
        .map_err(|source| Error::File { path: path.into(), source: Arc::new(source) })
}

/// Reads a file that holds a secret: refuses one that group or others may read.
///
/// # Errors
/// When it cannot be read, is no regular file, is too large, or is open to others.
pub(super) fn read_secret(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    read_checked(File::from(rustix::fs::open(path, flags, Mode::empty())?), Access::OwnerOnly)
}

fn read_checked(file: File, access: Access) -> io::Result<Zeroizing<Vec<u8>>> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = file.metadata()?;
    let refuse = |kind, text: &str| Err(io::Error::new(kind, text));
    if !metadata.is_file() {
        return refuse(io::ErrorKind::InvalidInput, "not a regular file");
    }
    if metadata.len() > LARGEST_BYTES {
        return refuse(io::ErrorKind::FileTooLarge, "larger than 1 MiB");
    }
    if access == Access::OwnerOnly && metadata.permissions().mode() & 0o077 != 0 {
        let text = "holds a secret but is open to group or others: chmod 600";
        return refuse(io::ErrorKind::PermissionDenied, text);
    }
    // Sized once: growing would leave copies of the secret behind.
    let capacity = usize::try_from(metadata.len()).unwrap_or(0) + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(LARGEST_BYTES).read_to_end(&mut content)?;
    Ok(content)
}

/// Turns bursts of events into one step of `changes` each, until the watcher is gone.
fn count_changes(
    events: &mpsc::Receiver<notify::Result<notify::Event>>,
    changes: &watch::Sender<u64>,
) {
    while let Ok(event) = events.recv() {
        if !is_change(&event) {
            continue;
        }
        while events.recv_timeout(QUIET).is_ok() {}
        changes.send_modify(|count| *count += 1);
    }
}

/// Our own reading makes events as well, which must not count.
fn is_change(event: &notify::Result<notify::Event>) -> bool {
    let Ok(event) = event else { return true };
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
