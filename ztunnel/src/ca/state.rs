//! The state directory: only ours, written atomically, on disk before it counts.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use zeroize::Zeroizing;

use super::Error;

/// The largest file in it is a few KiB.
const LARGEST_BYTES: u64 = 1 << 20;

/// A directory that nobody else may enter.
#[derive(Debug, Clone)]
pub struct State {
    path: PathBuf,
}

/// What became of a write that must not replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The file is new.
    Now,
    /// Somebody else was faster; theirs stands.
    Before,
}

impl State {
    /// Opens `path`, which is made with mode 0700 if it is not there.
    ///
    /// # Errors
    /// [`Error::Unsafe`] when group or others have any access, or it belongs to somebody else;
    /// [`Error::State`] when it cannot be made or looked at.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |action| move |source| state_error(action, path, source);
        DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(failed("create"))?;
        let metadata = fs::metadata(path).map_err(failed("read"))?;
        check_private(path, &metadata)?;
        Ok(Self { path: path.into() })
    }

    /// A directory within, with the same rules.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn within(&self, name: &str) -> Result<Self, Error> {
        Self::open(&self.path.join(name))
    }

    /// Where `name` is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The content of `name`, or nothing when there is no such file.
    ///
    /// # Errors
    /// [`Error::Unsafe`] when group or others may read it; [`Error::State`] when it cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        let path = self.path(name);
        let failed = |source| state_error("read", &path, source);
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        check_private(&path, &file.metadata().map_err(failed)?)?;
        let mut content = Zeroizing::new(Vec::with_capacity(4096));
        file.take(LARGEST_BYTES).read_to_end(&mut content).map_err(failed)?;
        Ok(Some(content))
    }

    /// Writes `name` unless it exists. When this returns, the file is whole and on disk.
    ///
    /// # Errors
    /// [`Error::State`] when the disk is full, read-only or failing; then there is no file.
    pub fn create(&self, name: &str, content: &[u8]) -> Result<Created, Error> {
        let path = self.path(name);
        let failed = |source| state_error("write", &path, source);
        let scratch = self.path(&format!(".{name}.{}.tmp", std::process::id()));
        let written = write_new(&scratch, content).and_then(|()| {
            match rustix::fs::renameat_with(CWD, &scratch, CWD, &path, RenameFlags::NOREPLACE) {
                Ok(()) => Ok(Created::Now),
                Err(rustix::io::Errno::EXIST) => Ok(Created::Before),
                Err(error) => Err(error.into()),
            }
        });
        if !matches!(written, Ok(Created::Now)) {
            // What is left of a failed write is of no use; failing to remove it does no harm.
            let _ = fs::remove_file(&scratch);
        }
        let created = written.map_err(failed)?;
        self.sync().map_err(failed)?;
        Ok(created)
    }

    /// Removes `name`; returns whether it was there. When this returns, it is gone from disk.
    ///
    /// # Errors
    /// [`Error::State`] when it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<bool, Error> {
        let path = self.path(name);
        let failed = |source| state_error("remove", &path, source);
        match fs::remove_file(&path) {
            Ok(()) => self.sync().map_err(failed).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// The names of all finished files, sorted.
    ///
    /// # Errors
    /// [`Error::State`] when the directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let failed = |source| state_error("read", &self.path, source);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            names.extend(finished(&name).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn finished(name: &OsStr) -> Option<&str> {
    name.to_str().filter(|name| !name.starts_with('.'))
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    // A file of this name is left from a process with our number that died while writing.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn check_private(path: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    if metadata.mode() & 0o077 != 0 {
        return Err(Error::Unsafe { path: path.into(), mode: metadata.mode() & 0o7777 });
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        let source = io::Error::new(io::ErrorKind::PermissionDenied, "belongs to another user");
        return Err(state_error("use", path, source));
    }
    Ok(())
}

fn state_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::State { action, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::ca::test_support::Scratch;

    #[test]
    fn content_survives_and_is_private() {
        let scratch = Scratch::new("state-private");
        let state = State::open(&scratch.path().join("a/b")).unwrap();
        assert!(state.read("x").unwrap().is_none());
        assert_eq!(state.create("x", b"one").unwrap(), Created::Now);
        assert_eq!(state.create("x", b"two").unwrap(), Created::Before);
        assert_eq!(state.read("x").unwrap().unwrap().as_slice(), b"one");
        assert_eq!(fs::metadata(state.path("x")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(state.path("")).unwrap().mode() & 0o777, 0o700);
        assert_eq!(state.names().unwrap(), ["x"]);
        assert!(state.remove("x").unwrap());
        assert!(!state.remove("x").unwrap());
    }

    #[test]
    fn state_that_others_can_reach_is_refused() {
        let scratch = Scratch::new("state-open");
        let state = State::open(&scratch.path().join("s")).unwrap();
        state.create("x", b"one").unwrap();
        let mode = |path: PathBuf, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(state.path("x"), 0o640);
        let error = state.read("x").unwrap_err();
        assert!(error.to_string().contains("mode 0640"), "{error}");
        mode(state.path(""), 0o755);
        let error = State::open(&scratch.path().join("s")).unwrap_err();
        assert!(matches!(error, Error::Unsafe { mode: 0o755, .. }));
    }

    #[test]
    fn a_place_that_cannot_be_written_gives_a_clear_error() {
        // Even root cannot make a directory below a file, nor a file in /proc.
        let scratch = Scratch::new("state-read-only");
        fs::write(scratch.path().join("file"), "").unwrap();
        let error = State::open(&scratch.path().join("file/state")).unwrap_err();
        assert!(error.to_string().starts_with("create "), "{error}");
        let state = State { path: "/proc/self/task".into() };
        let error = state.create("x", b"one").unwrap_err();
        assert!(error.to_string().starts_with("write /proc/self/task/x"), "{error}");
    }
}
