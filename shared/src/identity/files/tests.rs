//! Files in a real directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::identity::test_util::{PemPair, TestCa};
use crate::identity::{CertStore, CertificateError, Config, TrustDomain};

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("culvert-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn home(&self, id: &SpiffeId) -> PathBuf {
        let home = format!("certs/ns/{}/sa/{}", id.namespace(), id.service_account());
        self.0.join(home)
    }

    fn put(&self, ca: &TestCa, id: &SpiffeId, pair: &PemPair) {
        let home = self.home(id);
        fs::create_dir_all(&home).unwrap();
        fs::write(self.0.join("certs/root-cert.pem"), ca.root_pem()).unwrap();
        fs::write(home.join("cert-chain.pem"), &pair.chain).unwrap();
        write_key(&home.join("key.pem"), &pair.key);
    }

    fn open(&self) -> Files {
        Files::open(&self.0.join("certs")).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write_key(path: &Path, key: &str) {
    fs::write(path, key).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn ca() -> TestCa {
    TestCa::new(&TrustDomain::default())
}

fn web() -> SpiffeId {
    "spiffe://cluster.local/ns/team/sa/web".parse().unwrap()
}

#[tokio::test]
async fn certificate_is_read_from_the_place_of_its_identity() {
    let (ca, directory) = (ca(), Directory::new("read"));
    directory.put(&ca, &web(), &ca.issue_pem(&web()));
    let certificate = directory.open().issue(&web()).await.unwrap();
    assert_eq!(*certificate.identity(), web());
    let other = "spiffe://cluster.local/ns/team/sa/other".parse().unwrap();
    let error = directory.open().issue(&other).await.unwrap_err();
    assert_eq!(error.to_string(), "read ns/team/sa/other/cert-chain.pem");
}

#[tokio::test]
async fn key_that_others_may_read_is_refused() {
    let (ca, directory) = (ca(), Directory::new("mode"));
    directory.put(&ca, &web(), &ca.issue_pem(&web()));
    let key = directory.home(&web()).join("key.pem");
    for mode in [0o640, 0o604, 0o644] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let error = directory.open().issue(&web()).await.unwrap_err();
        let Error::File { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
    }
}

#[tokio::test]
async fn links_lead_nowhere_outside_and_anywhere_inside() {
    let (ca, directory) = (ca(), Directory::new("links"));
    directory.put(&ca, &web(), &ca.issue_pem(&web()));
    let home = directory.home(&web());
    fs::rename(home.join("key.pem"), home.join("real.pem")).unwrap();
    symlink("real.pem", home.join("key.pem")).unwrap();
    directory.open().issue(&web()).await.unwrap();
    fs::rename(home.join("real.pem"), directory.0.join("outside.pem")).unwrap();
    for outside in ["../../../../../outside.pem", directory.0.join("outside.pem").to_str().unwrap()]
    {
        fs::remove_file(home.join("key.pem")).unwrap();
        symlink(outside, home.join("key.pem")).unwrap();
        let error = directory.open().issue(&web()).await.unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{error}");
    }
}

#[tokio::test]
async fn key_and_chain_must_belong_together() {
    let (ca, directory) = (ca(), Directory::new("match"));
    let (one, other) = (ca.issue_pem(&web()), ca.issue_pem(&web()));
    directory.put(&ca, &web(), &PemPair { chain: one.chain, key: other.key });
    let error = directory.open().issue(&web()).await.unwrap_err();
    let mismatch = CertificateError::KeyMismatch.to_string();
    assert!(matches!(error, Error::Certificate { source, .. } if source.to_string() == mismatch));
}

#[tokio::test]
async fn change_is_picked_up_and_a_half_written_pair_leaves_the_old_one() {
    let (ca, directory) = (ca(), Directory::new("change"));
    directory.put(&ca, &web(), &ca.issue_pem(&web()));
    let (store, task) = CertStore::new(Arc::new(directory.open()), Config::default());
    tokio::spawn(task);
    let first = store.certificate(&web()).await.unwrap();

    let next = ca.issue_pem(&web());
    fs::write(directory.home(&web()).join("cert-chain.pem"), &next.chain).unwrap();
    eventually(|| store.snapshot()[0].error.is_some()).await;
    assert_eq!(store.latest(&web()).unwrap().serial(), first.serial());

    write_key(&directory.home(&web()).join("key.pem"), &next.key);
    eventually(|| store.latest(&web()).unwrap().serial() != first.serial()).await;
    assert!(store.snapshot()[0].error.is_none());
}

async fn eventually(condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "condition never came true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
