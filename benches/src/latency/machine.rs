//! What the figures were measured on.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::args::Args;
use super::record::Machine;
use crate::program::{ENVOY, HAPROXY, NGINX};

/// Describes this machine and the programs that take part.
pub(super) fn describe(args: &Args) -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let memory_kib = memory.split(' ').next().and_then(|text| text.parse().ok());
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Machine {
        cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        memory_kib: memory_kib.unwrap_or_default(),
        started_s: since.as_secs(),
        command: command(args),
        backend: backend().to_owned(),
        versions: versions(),
        root: rustix::process::geteuid().is_root(),
    }
}

/// The command line that measures the same again.
fn command(args: &Args) -> String {
    let mut command = "cargo bench --bench latency --".to_owned();
    if !args.modes.is_empty() {
        let modes: Vec<String> = args.modes.iter().map(|mode| mode.name()).collect();
        command.push_str(&format!(" --modes {}", modes.join(",")));
    }
    if !args.cells.is_empty() {
        command.push_str(&format!(" --cells {}", args.cells.join(",")));
    }
    format!("{command} --secs {} --rounds {}", args.secs(), args.rounds())
}

/// The day of a moment, in UTC: `2026-01-31`.
pub(super) fn date(since_1970_s: u64) -> String {
    // Days since 1 March of the year 0, counted in cycles of 400 years: leap days come last.
    let days = since_1970_s / 86_400 + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    let year = 400 * cycle + year + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_735_689_599, "2024-12-31"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(date(seconds), day);
        }
    }
}
