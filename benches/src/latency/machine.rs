//! What the figures were measured on.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::program::{ENVOY, HAPROXY, NGINX};
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
        backend: backend().to_owned(),
        versions: versions(),
        root: rustix::process::geteuid().is_root(),
    }
}

/// What answers the requests.
fn backend() -> &'static str {
    match NGINX.path() {
        Some(_) => "nginx",
        None => "the harness's own server, because there is no nginx",
    }
}

fn versions() -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    versions.insert("culvert".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    for program in [NGINX, ENVOY, HAPROXY] {
        if let Some(version) = program.version() {
            versions.insert(program.name.to_owned(), version);
        }
    }
    versions
}
