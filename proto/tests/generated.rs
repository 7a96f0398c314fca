//! The committed code is what the `.proto` files say.
#![expect(clippy::unwrap_used, reason = "a failure fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Every file that is compiled, below the crate's directory.
const FILES: &[&str] = &["istio/v1/auth/ca.proto"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn generate(into: &Path) {
    fs::create_dir_all(into).unwrap();
    let descriptors = protox::compile(FILES, [root()]).unwrap();
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .out_dir(into)
        .compile_fds(descriptors)
        .unwrap();
}

fn files(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().into(), fs::read_to_string(&path).unwrap()))
        .collect();
    found.sort();
    found
}

#[test]
fn committed_code_is_current() {
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated");
    let _ = fs::remove_dir_all(&fresh);
    generate(&fresh);
    assert!(
        files(&fresh) == files(&root().join("src/generated")),
        "stale: cargo test -p culvert-proto -- --ignored regenerate"
    );
}

#[test]
#[ignore = "writes src/generated; run it after a change of a .proto file"]
fn regenerate() {
    let into = root().join("src/generated");
    let _ = fs::remove_dir_all(&into);
    generate(&into);
}
