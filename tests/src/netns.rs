//! A network namespace held by a descriptor: it lives as long as the descriptor or a process in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::PathBuf;
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::sys;

/// A network namespace of our own.
#[derive(Debug)]
pub struct NetNs {
    file: File,
}

impl NetNs {
    /// Makes an empty namespace with its loopback interface up.
    ///
    /// # Errors
    /// The kernel refuses: we are not in a user namespace of our own.
    pub fn new() -> io::Result<Self> {
        let file = on_a_thread(|| {
            sys::unshare(UnshareFlags::NEWNET)?;
            // Addresses are ours to give out: no second of waiting for a duplicate.
            for which in ["all", "default"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0")?;
            }
            crate::netlink::Link::open()?.up("lo")?;
            File::open("/proc/thread-self/ns/net")
        })?;
        Ok(Self { file })
    }

    /// The path by which other processes find this namespace while this one holds it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let pid = rustix::process::getpid().as_raw_nonzero();
        PathBuf::from(format!("/proc/{pid}/fd/{}", self.file.as_raw_fd()))
    }

    /// Another handle of it.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn another(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()? })
    }

    /// Runs `act` inside, on a thread of its own. Sockets that it opens stay inside for good.
    ///
    /// # Errors
    /// Entering failed, or what `act` returns.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_a_thread(|| {
            enter(self.as_fd())?;
            act()
        })
    }

    /// Writes a setting of this namespace below `/proc/sys/net`.
    ///
    /// # Errors
    /// The kernel refuses or does not know it.
    pub fn set(&self, setting: &str, value: &str) -> io::Result<()> {
        let path = format!("/proc/sys/net/{setting}");
        self.run(|| std::fs::write(path, value))
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Moves the calling thread into a network namespace.
pub(crate) fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    Ok(())
}

fn on_a_thread<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        scope.spawn(act).join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}
