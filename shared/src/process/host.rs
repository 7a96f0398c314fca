//! What the process asks of the machine before it starts.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of descriptors to the hard one: a node has more connections than the usual
/// 1,024. A failure is told and lived with.
pub fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(?maximum, "raised the limit of descriptors"),
        Err(error) => {
            tracing::warn!(?current, ?maximum, %error, "the limit of descriptors stays low")
        }
    }
}

/// Makes the state directory with mode 0700, or makes sure that it is ours alone.
pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let metadata = std::fs::metadata(path)?;
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("it belongs to user {}, this process is user {own}", metadata.uid()),
        ));
    }
    if metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_is_ours_alone() {
        let path =
            std::env::temp_dir().join(format!("culvert-state-{}", std::process::id())).join("deep");
        private_directory(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        private_directory(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_file_in_its_place_is_an_error() {
        let path = std::env::temp_dir().join(format!("culvert-file-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        assert!(private_directory(&path).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
