//! Certificates for the modes that have no authority of their own: one root, a client, a server,
//! with the identities that the mesh would give them.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::{io, io::Write as _};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

/// Makes `root-cert.pem` in `dir`, and a folder for `client` and `server` each with
/// `cert-chain.pem`, `key.pem`, the root again, and `pair.pem`, which is chain and key in one.
pub(super) fn make(dir: &Path) -> anyhow::Result<()> {
    let root_key = KeyPair::generate()?;
    let mut root = CertificateParams::new(Vec::new())?;
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    root.distinguished_name.push(rcgen::DnType::OrganizationName, "cluster.local");
    let root_pem = root.self_signed(&root_key)?.pem();
    let issuer = Issuer::new(root, root_key);
    fs::create_dir_all(dir)?;
    fs::write(dir.join("root-cert.pem"), &root_pem)?;
    for name in ["client", "server"] {
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(vec![name.to_owned()])?;
        let identity = format!("spiffe://cluster.local/ns/default/sa/{name}");
        leaf.subject_alt_names.push(SanType::URI(identity.try_into()?));
        leaf.distinguished_name = DistinguishedName::new();
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let chain = leaf.signed_by(&key, &issuer)?.pem();
        let folder = dir.join(name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("root-cert.pem"), &root_pem)?;
        fs::write(folder.join("cert-chain.pem"), &chain)?;
        secret(&folder.join("key.pem"), &key.serialize_pem())?;
        secret(&folder.join("pair.pem"), &format!("{chain}{}", key.serialize_pem()))?;
    }
    Ok(())
}

fn secret(path: &PathBuf, text: &str) -> anyhow::Result<()> {
    let open = || -> io::Result<()> {
        let mut file =
            fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    };
    open().with_context(|| format!("writing {}", path.display()))
}
