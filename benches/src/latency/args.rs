//! The command line. Its flags are a contract with other people's scripts: extend, don't rename.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::mode::Mode;

/// Compares what service meshes cost in latency, CPU and memory, on this machine.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo bench --bench latency --")]
pub(super) struct Args {
    /// Which data planes, in a list with commas; all that this machine has when left out
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) modes: Vec<Mode>,
    /// Which measurements, by the start of their names; all when left out
    #[arg(long, value_delimiter = ',')]
    pub(super) cells: Vec<String>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3.0)]
    pub(super) secs: f64,
    /// How often each measurement is made
    #[arg(long, default_value_t = 3)]
    pub(super) rounds: u32,
    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Cargo runs benchmarks in the folder of their package: a relative path means the folder in
/// which the person typed it, which the shell still tells.
pub(super) fn as_typed(path: &Path) -> PathBuf {
    let typed_in = std::env::var_os("PWD").map(PathBuf::from).filter(|dir| dir.is_dir());
    typed_in.map_or_else(|| path.to_owned(), |dir| dir.join(path))
}
