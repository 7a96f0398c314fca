//! The laws of the fuzz targets, on their seeds: cheap, and what keeps the targets compiling.

use std::path::{Path, PathBuf};

fn entries(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(dir);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
    entries.map(|entry| entry.expect("a readable folder").path()).collect()
}

/// File names without extension, sorted.
fn names(dir: &str) -> Vec<String> {
    let stem = |path: &PathBuf| path.file_stem().and_then(|stem| stem.to_str().map(Into::into));
    let mut names: Vec<String> = entries(dir).iter().filter_map(stem).collect();
    names.sort();
    names
}

#[test]
fn every_seed_obeys_the_laws_of_its_target() {
    for (name, check) in laws::CHECKS {
        let seeds = entries(&format!("corpus/{name}"));
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            println!("{}", seed.display());
            check(&std::fs::read(&seed).expect("a readable seed"));
        }
    }
}

#[test]
fn every_target_and_every_corpus_has_a_check() {
    let mut checks: Vec<_> = laws::CHECKS.iter().map(|(name, _)| (*name).to_owned()).collect();
    checks.sort();
    assert_eq!(names("src/bin"), checks);
    assert_eq!(names("corpus"), checks);
}
