//! The report in figures: an overview with a line per mode, and a table per measurement.

use super::cell::{Cell, Direction};
use super::cost::Part;
use super::record::{Record, Syscalls};
use super::summary::{Group, Spread, group, groups};
use crate::grid::Grid;

/// Figures of a rate that every mode should hold.
pub(super) const STEADY: Cell = Cell::Open { rate: 3_200, connections: 16 };
/// The same rate, with nothing spread.
pub(super) const TOGETHER: Cell = Cell::Burst { rate: 3_200, connections: 16 };
/// Figures of the most that a mode can do.
pub(super) const MOST: Cell = Cell::Closed { connections: 64 };
pub(super) const FRESH: Cell = Cell::Fresh { connections: 16 };
pub(super) const BULK: Cell = Cell::Bulk { streams: 1, direction: Direction::Down };
pub(super) const IDLE: Cell = Cell::Idle { connections: 5_000 };

/// A line per mode with the figures that decide.
pub(super) fn overview(record: &Record) -> Grid {
    let mut grid = Grid::new([
        "data plane",
        "p50 / p99 ms at 3,200 req/s",
        "max req/s",
        "proxy CPU µs/req, at 3,200 → max",
        "system calls/req, at 3,200 → max",
        "new conn/s",
        "bulk Gbit/s",
        "proxy CPU s/GB",
        "MiB per proxy",
        "with 5,000 connections",
    ]);
    for mode in record.modes() {
        let of = |cell| group(record, cell, mode);
        let (steady, most) = (of(STEADY), of(MOST));
        let cpu =
            |group: &Option<Group<'_>>| median(group.as_ref().and_then(Group::proxy_cpu_us), 0);
        let calls = |cell| {
            let per = Syscalls::find(record, mode, cell).map(|calls| calls.per_request("all"));
            per.map_or_else(|| "–".to_owned(), |per| format!("{per:.1}"))
        };
        let latency = steady.as_ref().map_or_else(
            || "–".to_owned(),
            |group| {
                let p50 = group.latency_ms(|latency| latency.p50_us);
                let p99 = group.latency_ms(|latency| latency.p99_us);
                let saturated = if group.is_saturated() { " (saturated)" } else { "" };
                format!("{} / {}{saturated}", median(p50, 2), median(p99, 2))
            },
        );
        let bulk = of(BULK);
        let memory = |group: Option<Group<'_>>| number(group.and_then(|it| it.proxy_mib()), 1);
        grid.line(vec![
            mode.name(),
            latency,
            median(most.as_ref().and_then(Group::rate), 0),
            pair(&cpu(&steady), &cpu(&most)),
            pair(&calls(STEADY), &calls(MOST)),
            median(of(FRESH).and_then(|group| group.rate()), 0),
            median(bulk.as_ref().and_then(Group::gbit_per_s), 1),
            median(bulk.and_then(|group| group.proxy_cpu_per_gb()), 2),
            memory(steady),
            memory(of(IDLE)),
        ]);
    }
    grid.without_empty_columns()
}

fn pair(first: &str, second: &str) -> String {
    if (first, second) == ("–", "–") {
        "–".to_owned()
    } else {
        format!("{first} → {second}")
    }
}

/// Every measurement: heading and table.
pub(super) fn cells(record: &Record) -> Vec<(String, Grid)> {
    let mut tables = Vec::new();
    for cell in Cell::all() {
        let groups = groups(record, cell);
        if !groups.is_empty() {
            tables.push((cell.title(), table(record, cell, &groups)));
        }
    }
    tables
}

fn table(record: &Record, cell: Cell, groups: &[Group<'_>]) -> Grid {
    match cell {
        Cell::Open { .. } | Cell::Burst { .. } | Cell::Closed { .. } | Cell::Fresh { .. } => {
            requests(record, cell, groups)
        }
        Cell::Bulk { .. } => bulk(groups),
        Cell::Idle { .. } => idle(groups),
    }
}

fn requests(record: &Record, cell: Cell, groups: &[Group<'_>]) -> Grid {
    let mut grid = Grid::new([
        "",
        "req/s",
        "p50 ms",
        "p90",
        "p99",
        "p99.9",
        "errors",
        "proxy CPU µs/req",
        "user+kernel",
        "near+(waypoint+)far",
        "all CPU µs/req",
        "switches/req",
        "calls/req",
        "proxy MiB",
        "",
    ]);
    for group in groups {
        let switches = group.per_request(|cost| {
            if cost.part.is_proxy() { (cost.waits + cost.preemptions) as f64 } else { 0.0 }
        });
        let calls = Syscalls::find(record, group.mode, cell);
        let calls = calls.map_or_else(String::new, |it| format!("{:.1}", it.per_request("all")));
        let saturated = if group.is_saturated() { "saturated" } else { "" };
        let mut line = vec![
            group.mode.name(),
            ranged(group.rate(), 0),
            ranged(group.latency_ms(|latency| latency.p50_us), 2),
            median(group.latency_ms(|latency| latency.p90_us), 2),
            ranged(group.latency_ms(|latency| latency.p99_us), 2),
            median(group.latency_ms(|latency| latency.p999_us), 2),
            group.errors().to_string(),
        ];
        line.extend(proxy_cpu(group));
        line.extend([median(group.cpu_us(|_| true), 0)]);
        line.extend([
            if group.has_proxies() { median(switches, 2) } else { String::new() },
            calls,
            number(group.proxy_mib(), 1),
            saturated.to_owned(),
        ]);
        grid.line(line);
    }
    grid.without_empty_columns()
}

/// The proxies' CPU per request: together, by user and kernel, by side.
fn proxy_cpu(group: &Group<'_>) -> [String; 3] {
    if !group.has_proxies() {
        return [const { String::new() }; 3];
    }
    let user = group.per_request(|cost| if cost.part.is_proxy() { cost.user_us } else { 0.0 });
    let kernel = group.per_request(|cost| if cost.part.is_proxy() { cost.kernel_us } else { 0.0 });
    let (near, far) =
        (group.cpu_us(|part| part == Part::Near), group.cpu_us(|part| part == Part::Far));
    [
        ranged(group.proxy_cpu_us(), 0),
        format!("{}+{}", median(user, 0), median(kernel, 0)),
        match group.cpu_us(|part| part == Part::Waypoint) {
            Some(between) if between.median > 0.0 => {
                format!("{}+{}+{}", median(near, 0), median(Some(between), 0), median(far, 0))
            }
            _ => format!("{}+{}", median(near, 0), median(far, 0)),
        },
    ]
}

fn bulk(groups: &[Group<'_>]) -> Grid {
    let mut grid =
        Grid::new(["", "Gbit/s", "errors", "proxy CPU s/GB", "all CPU s/GB", "proxy MiB"]);
    for group in groups {
        grid.line(vec![
            group.mode.name(),
            ranged(group.gbit_per_s(), 2),
            group.errors().to_string(),
            ranged(group.proxy_cpu_per_gb(), 2),
            median(group.cpu_per_gb(|_| true), 2),
            number(group.proxy_mib(), 1),
        ]);
    }
    grid.without_empty_columns()
}

fn idle(groups: &[Group<'_>]) -> Grid {
    let mut grid =
        Grid::new(["", "connections", "errors", "proxy MiB", "KiB per connection", "proxy CPU %"]);
    for group in groups {
        let busy = group.spread(|sample| {
            let proxies = sample.costs.iter().filter(|cost| cost.part.is_proxy());
            let us: f64 = proxies.map(|cost| cost.user_us + cost.kernel_us).sum();
            Some(us / 1e4 / sample.seconds)
        });
        grid.line(vec![
            group.mode.name(),
            median(group.spread(|sample| Some(sample.done as f64)), 0),
            group.errors().to_string(),
            number(group.proxy_mib(), 1),
            number(group.kib_per_connection(), 1),
            if group.has_proxies() { median(busy, 1) } else { String::new() },
        ]);
    }
    grid.without_empty_columns()
}

/// What could not be measured, and why; columns that need root say so.
pub(super) fn remarks(record: &Record) -> Vec<String> {
    let mut remarks: Vec<String> = Vec::new();
    for (mode, why) in &record.missing {
        remarks.push(format!("{} was not measured: {why}", mode.name()));
    }
    for (mode, why) in &record.failed {
        remarks.push(format!("{} failed and was given up: {why}", mode.name()));
    }
    if let Some(why) = &record.no_syscalls {
        remarks.push(format!("system calls were not counted: {why}"));
    }
    for mode in record.modes() {
        let saturated: Vec<String> = Cell::all()
            .into_iter()
            .filter(|cell| group(record, *cell, mode).is_some_and(|group| group.is_saturated()))
            .map(Cell::title)
            .collect();
        if !saturated.is_empty() {
            remarks.push(format!("{} could not hold {}", mode.name(), saturated.join("; ")));
        }
    }
    remarks
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// The median alone.
pub(super) fn median(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| format!("{:.digits$}", spread.median))
}

/// The median and, where rounds differ, from where to where they go.
fn ranged(spread: Option<Spread>, digits: usize) -> String {
    let Some(Spread { median, low, high }) = spread else { return "–".to_owned() };
    let [middle, from, to] = [median, low, high].map(|value| format!("{value:.digits$}"));
    if from == to { middle } else { format!("{middle} ({from}–{to})") }
}
