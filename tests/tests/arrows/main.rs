//! Arrows that must never exist between crates and modules (docs/architecture.md).
//!
//! Crates are read from `cargo metadata`; modules by resolving every `use` and every full path of
//! the sources. A planted violation of each kind proves that the check can fail.

mod resolve;

use std::path::{Path, PathBuf};

use cargo_metadata::MetadataCommand;
use resolve::{ModulePath, references};

/// Code under `from` must not name anything under `to`, except from the modules in `except`.
struct Arrow {
    from: &'static str,
    to: &'static str,
    except: &'static [&'static str],
}

/// Module arrows. A module path starts with its crate's name.
const FORBIDDEN_MODULES: &[Arrow] = &[
    Arrow { from: "shared::hbone", to: "shared::mesh", except: &[] },
    Arrow { from: "shared::telemetry", to: "shared::mesh", except: &[] },
    // Generated wire types stay in the modules that speak the wire.
    Arrow { from: "shared", to: "proto", except: &["shared::identity", "shared::feed"] },
    Arrow { from: "ztunnel", to: "proto", except: &["ztunnel::ca", "ztunnel::zds"] },
    Arrow { from: "waypoint", to: "proto", except: &[] },
];

/// Crate arrows: (from, to), by package name, dependencies of every kind.
const FORBIDDEN_CRATES: &[(&str, &str)] = &[
    ("culvert-shared", "culvert-ztunnel"),
    ("culvert-shared", "culvert-waypoint"),
    ("culvert-ztunnel", "culvert-waypoint"),
    ("culvert-waypoint", "culvert-ztunnel"),
    ("culvert-proto", "culvert-shared"),
    ("culvert-proto", "culvert-tests"),
    ("culvert-shared", "culvert-tests"),
    ("culvert-ztunnel", "culvert-tests"),
    ("culvert-waypoint", "culvert-tests"),
    ("culvert-shared", "culvert-laws"),
    ("culvert-ztunnel", "culvert-laws"),
    ("culvert-waypoint", "culvert-laws"),
];

const CRATES: &[&str] = &["shared", "ztunnel", "waypoint"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a workspace member").into()
}

fn within(path: &str, module: &str) -> bool {
    path == module || path.strip_prefix(module).is_some_and(|rest| rest.starts_with("::"))
}

/// Every forbidden reference of one source file, as `file:line: from -> to`.
fn violations(file: &str, module: &ModulePath, source: &str) -> Vec<String> {
    let from = module.to_string();
    let mut found = Vec::new();
    for reference in references(module, source).expect("source parses") {
        for arrow in FORBIDDEN_MODULES {
            let applies = within(&from, arrow.from)
                && !arrow.except.iter().any(|exempt| within(&from, exempt));
            if applies && within(&reference.path, arrow.to) {
                found.push(format!("{file}:{}: {from} -> {}", reference.line, reference.path));
            }
        }
    }
    found
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("source directory is readable") {
        let path = entry.expect("source directory is readable").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn no_module_names_what_it_must_not_know() {
    let mut found = Vec::new();
    let mut read = 0;
    for name in CRATES {
        let src = root().join(name).join("src");
        for file in sources(&src) {
            let module = ModulePath::of_file(name, file.strip_prefix(&src).expect("below src"));
            let source = std::fs::read_to_string(&file).expect("source is readable");
            found.extend(violations(&file.display().to_string(), &module, &source));
            read += 1;
        }
    }
    assert!(read > 20, "only {read} source files were found");
    assert!(found.is_empty(), "forbidden arrows:\n{}", found.join("\n"));
}

#[test]
fn no_crate_depends_on_what_it_must_not_know() {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo metadata answers");
    let depends = |from: &str, to: &str| {
        let package = metadata.packages.iter().find(|package| package.name.as_str() == from);
        let package = package.unwrap_or_else(|| panic!("{from} is a workspace member"));
        package.dependencies.iter().any(|dependency| dependency.name == to)
    };
    for (from, to) in FORBIDDEN_CRATES {
        assert!(!depends(from, to), "{from} must not depend on {to}");
    }
    assert!(depends("culvert-tests", "culvert-ztunnel"), "the check sees real dependencies");
}

#[test]
fn planted_violations_are_found() {
    let hbone = ModulePath::new("shared::hbone::pool");
    for source in [
        "use crate::mesh::Mesh;",
        "use crate::{mesh, tls};",
        "use super::super::mesh::Workload as W;",
        "fn f() { let _ = crate::mesh::writer(); }",
        "use crate as c; fn f(m: &c::mesh::Mesh) {}",
        "use crate::*; fn f(m: &mesh::Mesh) {}",
        "mod inside { use crate::mesh::Mesh; }",
        "fn f() { println!(\"{:?}\", crate::mesh::writer()); }",
    ] {
        assert_eq!(violations("planted.rs", &hbone, source).len(), 1, "{source}");
    }
    let outbound = ModulePath::new("ztunnel::outbound");
    for source in ["use proto::istio::v1::auth::Request;", "fn f(x: ::proto::X) {}"] {
        assert_eq!(violations("planted.rs", &outbound, source).len(), 1, "{source}");
    }
}

#[test]
fn allowed_references_are_not_found() {
    let hbone = ModulePath::new("shared::hbone::pool");
    for source in [
        "use crate::tls::Stream; use super::engine; // crate::mesh in a comment",
        "mod mesh { pub struct Mesh; } use mesh::Mesh; use self::mesh as m;",
        "fn f() -> &'static str { \"crate::mesh\" }",
    ] {
        assert_eq!(violations("allowed.rs", &hbone, source), Vec::<String>::new(), "{source}");
    }
    let ca = ModulePath::new("ztunnel::ca::server");
    assert!(violations("allowed.rs", &ca, "use proto::X;").is_empty());
}
