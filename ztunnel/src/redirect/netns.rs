//! Network namespaces: opened once, checked, kept by descriptor, entered for synchronous work only.
//!
//! Invariants: the calling thread is back in its own namespace when [`Namespace::run`] returns,
//! or the process is gone; a path is judged by the file it opened, never by its name.
//! Not here: which pod a namespace belongs to (`pods`).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

/// `NSFS_MAGIC` of `linux/magic.h`: the file system that namespace files live on.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;
/// Inode of the machine's first network namespace, fixed since Linux 6.18 (`NET_NS_INIT_INO`).
const FIRST_NAMESPACE_INODE: u64 = 0xefff_fff9;

/// Why a namespace could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path could not be opened, or what it names could not be examined.
    #[error("cannot open the network namespace")]
    Open(#[source] io::Error),
    /// The path names something that is not a namespace, or not one of the network.
    #[error("not a network namespace file")]
    NotANamespace,
    /// The path names the proxy's own namespace.
    #[error("this is the proxy's own network namespace")]
    Own,
    /// The path names the namespace of the machine or of its first process.
    #[error("this is the host's network namespace")]
    Host,
    /// The thread may not enter it.
    #[error("cannot enter the network namespace (needs CAP_SYS_ADMIN)")]
    Enter(#[source] io::Error),
}

/// Which namespace a descriptor stands for; two descriptors of one namespace are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct NamespaceId {
    /// Device of the namespace file system.
    pub device: u64,
    /// Inode: the number that `readlink /proc/self/ns/net` shows.
    pub inode: u64,
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.inode)
    }
}

/// The namespace that the process runs in, and those it must never touch.
#[derive(Debug)]
pub struct Home {
    own: OwnedFd,
    id: NamespaceId,
    host: Option<NamespaceId>,
}

impl Home {
    /// Remembers the namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` does not show it.
    pub fn current() -> io::Result<Arc<Self>> {
        let own = open(Path::new("/proc/thread-self/ns/net"), OFlags::RDONLY)?;
        let id = id_of(&own)?;
        // Readable only for the machine's root; a user namespace cannot enter it either way.
        let host = open(Path::new("/proc/1/ns/net"), OFlags::PATH).and_then(|fd| id_of(&fd)).ok();
        Ok(Arc::new(Self { own, id, host }))
    }

    /// Which namespace this is.
    pub fn id(&self) -> NamespaceId {
        self.id
    }

    /// Shows that this process may switch namespaces: enters its own and returns.
    ///
    /// # Errors
    /// [`Error::Enter`] without `CAP_SYS_ADMIN`.
    pub fn probe(&self) -> Result<(), Error> {
        enter(&self.own).map_err(Error::Enter)
    }

    fn judge(&self, id: NamespaceId) -> Result<(), Error> {
        if id == self.id {
            return Err(Error::Own);
        }
        if self.host == Some(id) || id.inode == FIRST_NAMESPACE_INODE {
            return Err(Error::Host);
        }
        Ok(())
    }
}

/// A pod's network namespace, held open: it lives at least as long as this value.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
    id: NamespaceId,
    home: Arc<Home>,
}

impl Namespace {
    /// Opens the namespace that `path` names, after looking at what kind of file it is.
    ///
    /// # Errors
    /// [`Error`] names what is wrong with the path; nothing was entered or changed then, except
    /// for [`Error::NotANamespace`] of another namespace kind, found by trying to enter.
    pub fn open(path: &Path, home: &Arc<Home>) -> Result<Self, Error> {
        // A path descriptor opens nothing: no FIFO blocks, no device reacts.
        let place = open(path, OFlags::PATH).map_err(Error::Open)?;
        let kind = rustix::fs::fstatfs(&place).map_err(|error| Error::Open(error.into()))?;
        if kind.f_type != NSFS_MAGIC {
            return Err(Error::NotANamespace);
        }
        let id = id_of(&place).map_err(Error::Open)?;
        home.judge(id)?;
        // The same file again, now usable for entering; `setns` refuses path descriptors.
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&place));
        let fd = open(Path::new(&again), OFlags::RDONLY).map_err(Error::Open)?;
        let namespace = Self { fd, id, home: Arc::clone(home) };
        match namespace.run(|| ()) {
            Ok(()) => Ok(namespace),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                Err(Error::NotANamespace)
            }
            Err(error) => Err(Error::Enter(error)),
        }
    }

    /// Which namespace this is.
    pub fn id(&self) -> NamespaceId {
        self.id
    }

    /// Runs `work` on this thread inside the namespace. `work` must not wait for anything: no
    /// other task of the thread runs meanwhile, and what it opens belongs to the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered; `work` did not run then.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let home = Return(&self.home.own);
        if let Err(error) = enter(&self.fd) {
            std::mem::forget(home);
            return Err(error);
        }
        let result = work();
        drop(home);
        Ok(result)
    }
}

/// Brings the thread home, also when the work panics.
struct Return<'a>(&'a OwnedFd);

impl Drop for Return<'_> {
    fn drop(&mut self) {
        if let Err(error) = enter(self.0) {
            // A thread that stays behind would serve other pods from the wrong namespace.
            tracing::error!(%error, "cannot return to the own network namespace, aborting");
            std::process::abort();
        }
    }
}

fn enter(fd: &impl AsFd) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(Into::into)
}

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(Into::into)
}

/// Which namespace the file at `path` stands for now.
///
/// # Errors
/// When nothing can be opened there.
pub fn id_at(path: &Path) -> io::Result<NamespaceId> {
    id_of(&open(path, OFlags::PATH)?)
}

fn id_of(fd: &impl AsFd) -> io::Result<NamespaceId> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(NamespaceId { device: stat.st_dev, inode: stat.st_ino })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_is_refused() {
        let home = Home::current().unwrap();
        let refused = Namespace::open(Path::new("/proc/self/ns/net"), &home);
        assert!(matches!(refused, Err(Error::Own)), "{refused:?}");
    }

    #[test]
    fn a_plain_file_a_directory_and_a_fifo_are_refused() {
        let home = Home::current().unwrap();
        for path in ["/etc/hostname", "/proc", "/dev/null", "/proc/self/ns"] {
            let refused = Namespace::open(Path::new(path), &home);
            assert!(matches!(refused, Err(Error::NotANamespace)), "{path}: {refused:?}");
        }
    }

    #[test]
    fn a_missing_path_says_so() {
        let home = Home::current().unwrap();
        let refused = Namespace::open(Path::new("/nowhere/netns"), &home);
        assert!(matches!(refused, Err(Error::Open(_))), "{refused:?}");
    }
}
