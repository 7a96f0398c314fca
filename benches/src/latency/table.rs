//! The report for a terminal: a table per measurement, a line per mode.

use super::cell::Cell;
use super::record::Record;
use super::summary::{Group, Spread, groups};

/// Columns of text, aligned: the first to the left, the others to the right.
pub(super) struct Columns(Vec<Vec<String>>);

impl Columns {
    pub(super) fn new<'a>(head: impl IntoIterator<Item = &'a str>) -> Self {
        Self(vec![head.into_iter().map(ToOwned::to_owned).collect()])
    }

    pub(super) fn line(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }

    pub(super) fn text(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column| {
            let cells = self.0.iter().filter_map(|line: &Vec<String>| line.get(column));
            cells.map(|cell: &String| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for line in &self.0 {
            for (column, cell) in line.iter().enumerate() {
                let width = widths[column];
                let padded = if column == 0 {
                    format!("  {cell:<width$}")
                } else {
                    format!("  {cell:>width$}")
                };
                text.push_str(&padded);
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

/// The whole report.
pub(super) fn report(record: &Record) -> String {
    let mut text = String::new();
    for cell in Cell::all() {
        let groups = groups(record, cell);
        if !groups.is_empty() {
            text.push_str(&format!("\n{}\n{}", cell.title(), table(cell, &groups)));
        }
    }
    text
}

fn table(cell: Cell, groups: &[Group<'_>]) -> String {
    match cell {
        Cell::Open { .. } | Cell::Closed { .. } | Cell::Fresh { .. } => requests(groups),
        Cell::Bulk { .. } => bulk(groups),
        Cell::Idle { .. } => idle(groups),
    }
}

fn requests(groups: &[Group<'_>]) -> String {
    let mut columns = Columns::new([
        "",
        "req/s",
        "p50 ms",
        "p90",
        "p99",
        "p99.9",
        "errors",
        "proxy CPU µs/req",
        "user+kernel",
        "all CPU µs/req",
        "proxy switches/req",
        "proxy MiB",
        "",
    ]);
    for group in groups {
        let proxies = |user: bool| {
            group.per_request(move |cost| match (cost.part.is_proxy(), user) {
                (true, true) => cost.user_us,
                (true, false) => cost.kernel_us,
                (false, _) => 0.0,
            })
        };
        let switches = group.per_request(|cost| {
            if cost.part.is_proxy() { (cost.waits + cost.preemptions) as f64 } else { 0.0 }
        });
        let split = format!("{}+{}", median(proxies(true), 0), median(proxies(false), 0));
        columns.line(vec![
            group.mode.name(),
            ranged(group.rate(), 0),
            ranged(group.latency_ms(|latency| latency.p50_us), 2),
            median(group.latency_ms(|latency| latency.p90_us), 2),
            ranged(group.latency_ms(|latency| latency.p99_us), 2),
            median(group.latency_ms(|latency| latency.p999_us), 2),
            group.errors().to_string(),
            ranged(group.cpu_us(|part| part.is_proxy()), 0),
            split,
            median(group.cpu_us(|_| true), 0),
            median(switches, 2),
            median(group.proxy_mib(), 1),
            if group.is_saturated() { "saturated".to_owned() } else { String::new() },
        ]);
    }
    columns.text()
}

fn bulk(groups: &[Group<'_>]) -> String {
    let mut columns =
        Columns::new(["", "Gbit/s", "errors", "proxy CPU s/GB", "all CPU s/GB", "proxy MiB"]);
    for group in groups {
        columns.line(vec![
            group.mode.name(),
            ranged(group.gbit_per_s(), 2),
            group.errors().to_string(),
            ranged(group.cpu_per_gb(|part| part.is_proxy()), 2),
            median(group.cpu_per_gb(|_| true), 2),
            median(group.proxy_mib(), 1),
        ]);
    }
    columns.text()
}

fn idle(groups: &[Group<'_>]) -> String {
    let mut columns = Columns::new(["", "connections", "errors", "proxy MiB"]);
    for group in groups {
        columns.line(vec![
            group.mode.name(),
            median(group.spread(|sample| Some(sample.done as f64)), 0),
            group.errors().to_string(),
            ranged(group.proxy_mib(), 1),
        ]);
    }
    columns.text()
}

/// The median alone.
pub(super) fn median(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| format!("{:.digits$}", spread.median))
}

/// The median and, where rounds differ, from where to where they go.
pub(super) fn ranged(spread: Option<Spread>, digits: usize) -> String {
    let Some(Spread { median, low, high }) = spread else { return "–".to_owned() };
    let [middle, from, to] = [median, low, high].map(|value| format!("{value:.digits$}"));
    if from == to { middle } else { format!("{middle} ({from}–{to})") }
}
