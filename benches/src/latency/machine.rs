//! What the figures were measured on.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::backend::has_nginx;
use super::record::Machine;

/// Describes this machine and the programs that take part.
pub(super) fn describe() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let memory_kib = memory.split(' ').next().and_then(|text| text.parse().ok());
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let args: Vec<String> = std::env::args().skip_while(|arg| arg != "inside").skip(2).collect();
    let args: Vec<String> = args.into_iter().filter(|arg| arg != "--bench").collect();
    Machine {
        cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        memory_kib: memory_kib.unwrap_or_default(),
        started_s: since.as_secs(),
        command: format!("cargo bench --bench latency -- {}", args.join(" ")).trim().to_owned(),
        backend: if has_nginx() { "nginx" } else { "the harness's own server (no nginx found)" }
            .to_owned(),
        versions: versions(),
        root: rustix::process::geteuid().is_root(),
    }
}

fn versions() -> BTreeMap<String, String> {
    let programs = [("nginx", "nginx", "-v")];
    let mut versions = BTreeMap::new();
    versions.insert("culvert".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    for (name, program, flag) in programs {
        if let Some(version) = version(program, flag) {
            versions.insert(name.to_owned(), version);
        }
    }
    versions
}

/// The first line of what a program says about itself.
fn version(program: &str, flag: &str) -> Option<String> {
    let output = Command::new(harness::enter::find(program)?).arg(flag).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    said.lines().map(str::trim).find(|line| !line.is_empty()).map(ToOwned::to_owned)
}
