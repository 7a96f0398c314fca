//! A directory of certificates in the form of `ztunnel run --certs`, which other proxies read too.

use std::fs;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use shared::identity::test_util::TestCa;
use shared::identity::{SpiffeId, TrustDomain};

use crate::pod::Pod;

/// One root, and a certificate for each identity that was asked for.
pub struct CertDir {
    path: PathBuf,
    ca: TestCa,
}

/// An identity as files.
#[derive(Clone, Debug)]
pub struct PemFiles {
    /// The leaf.
    pub chain: PathBuf,
    /// Its key, readable by its owner alone.
    pub key: PathBuf,
    /// What the other side is to be checked against.
    pub root: PathBuf,
}

impl CertDir {
    /// Makes the directory, with a new root.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        let ca = TestCa::new(&TrustDomain::default());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        fs::write(path.join("root-cert.pem"), ca.root_pem())?;
        Ok(Self { path, ca })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a certificate for `pod`.
    ///
    /// # Errors
    /// It cannot be written, or is there already.
    pub fn add(&self, pod: &Pod) -> anyhow::Result<PemFiles> {
        let identity: SpiffeId = pod.identity().parse()?;
        let pair = self.ca.issue_pem(&identity);
        let home = format!("ns/{}/sa/{}", identity.namespace(), identity.service_account());
        let home = self.path.join(home);
        fs::create_dir_all(&home)?;
        let files = PemFiles {
            chain: home.join("cert-chain.pem"),
            key: home.join("key.pem"),
            root: self.path.join("root-cert.pem"),
        };
        fs::write(&files.chain, pair.chain)?;
        fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&files.key)?
            .write_all(pair.key.as_bytes())?;
        Ok(files)
    }
}
