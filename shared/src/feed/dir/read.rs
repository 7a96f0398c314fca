//! Reading a directory as one snapshot.
//!
//! Invariants: dot files, editors' copies and other extensions are not read; a link counts only if
//! it ends inside the directory; nothing but regular files is opened; sizes are bounded.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};

/// One file: 64 MiB, some 8,000 pods as `kubectl get -o yaml` prints them.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// All files together: 1 GiB.
const MAX_TOTAL_BYTES: u64 = 1 << 30;
/// Directories in directories.
const MAX_DEPTH: usize = 8;
/// A file that changed less than this before it was read may change again without a trace in its
/// time stamp (kernels stamp by the tick).
const SETTLED: Duration = Duration::from_secs(1);

/// What a file holds.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// The same as when it was last read.
    Unchanged,
    /// This.
    Text(String),
    /// Why it cannot be read.
    Unreadable(String),
}

/// What tells one version of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: SystemTime,
    changed: (i64, i64),
}

/// All files of a directory at one time.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) files: BTreeMap<Arc<str>, Content>,
    /// Stamps of the files that will show any later change.
    pub(super) stamps: BTreeMap<Arc<str>, Stamp>,
    /// Whether no file changed while they were read.
    pub(super) is_stable: bool,
}

/// A file that was found: where it is and what it looked like, or why it cannot be read.
type Found = BTreeMap<Arc<str>, Result<(PathBuf, Stamp), String>>;

/// Reads the files of `dir`, except those of which `is_known` says that they were read before.
///
/// # Errors
/// When `dir` itself cannot be listed.
pub(super) fn snapshot(
    dir: &Path,
    is_known: &dyn Fn(&str, &Stamp) -> bool,
) -> io::Result<Snapshot> {
    let started = SystemTime::now();
    let found = list(dir)?;
    let (mut files, mut stamps) = (BTreeMap::new(), BTreeMap::new());
    let mut left = MAX_TOTAL_BYTES;
    for (name, file) in &found {
        let content = match file {
            Err(reason) => Content::Unreadable(reason.clone()),
            Ok((path, stamp)) => {
                let age = started.duration_since(stamp.modified).unwrap_or_default();
                if age > SETTLED {
                    stamps.insert(name.clone(), *stamp);
                }
                left = left.saturating_sub(stamp.bytes);
                if is_known(name, stamp) {
                    Content::Unchanged
                } else if left == 0 {
                    Content::Unreadable("all files together are larger than 1 GiB".to_owned())
                } else {
                    read(path).map_or_else(Content::Unreadable, Content::Text)
                }
            }
        };
        files.insert(name.clone(), content);
    }
    let is_stable = list(dir).is_ok_and(|again| again == found);
    Ok(Snapshot { files, stamps, is_stable })
}

fn list(dir: &Path) -> io::Result<Found> {
    let root = fs::canonicalize(dir)?;
    let mut found = Found::new();
    let mut seen = HashSet::from([root.clone()]);
    let mut pending = vec![(root.clone(), String::new(), 0)];
    while let Some((dir, prefix, depth)) = pending.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Err(error),
            Err(error) => {
                found.insert(prefix.into(), Err(error.to_string()));
                continue;
            }
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if is_ignored(&name) {
                continue;
            }
            let name = format!("{prefix}{}", name.to_string_lossy());
            let path = match inside(&root, &entry.path()) {
                Ok(path) => path,
                Err(reason) => {
                    if is_yaml(&entry.path()) {
                        found.insert(name.into(), Err(reason));
                    }
                    continue;
                }
            };
            let metadata = fs::metadata(&path);
            if metadata.as_ref().is_ok_and(Metadata::is_dir) {
                if depth < MAX_DEPTH && seen.insert(path.clone()) {
                    pending.push((path, format!("{name}/"), depth + 1));
                }
            } else if is_yaml(&entry.path()) {
                found.insert(name.into(), stamp(metadata).map(|stamp| (path, stamp)));
            }
        }
    }
    Ok(found)
}

/// The real path of what may be a link, if that is inside `root`.
fn inside(root: &Path, path: &Path) -> Result<PathBuf, String> {
    let real = fs::canonicalize(path).map_err(|error| error.to_string())?;
    match real.starts_with(root) {
        true => Ok(real),
        false => Err("a link that leaves the mesh directory is not followed".to_owned()),
    }
}

fn stamp(metadata: io::Result<Metadata>) -> Result<Stamp, String> {
    let metadata = metadata.map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    Ok(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: metadata.modified().map_err(|error| error.to_string())?,
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

fn read(path: &Path) -> Result<String, String> {
    // The path is real, so a link here was put in its place since; a pipe must not block us.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let limited = File::from(file).take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    limited.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("is larger than 64 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// Dot files (Kubernetes keeps the versions of a mounted volume there) and editors' copies.
fn is_ignored(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(['.', '#']) || name.ends_with('~')
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}
