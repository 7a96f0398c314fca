//! Two runs compared: what of ours got worse. Runs differ by themselves, so a figure is worse only if
//! all rounds of the new run are worse than all rounds of the old one, and the medians differ by
//! more than the tolerance of the figure plus whatever `direct` lost at the same time: that is the
//! machine, not us.

use super::cell::Cell;
use super::mode::Mode;
use super::record::Record;
use super::summary::{Group, Spread, group};
use crate::grid::Grid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    Lower,
    Higher,
}

/// A figure that may get worse.
struct Figure {
    name: &'static str,
    better: Better,
    /// Part of the old value that does not matter.
    tolerance: f64,
    of: fn(&Group<'_>) -> Option<Spread>,
}

const fn lower(name: &'static str, tolerance: f64, of: fn(&Group<'_>) -> Option<Spread>) -> Figure {
    Figure { name, better: Better::Lower, tolerance, of }
}

const fn higher(name: &'static str, of: fn(&Group<'_>) -> Option<Spread>) -> Figure {
    Figure { name, better: Better::Higher, tolerance: 0.10, of }
}

const CPU: Figure = lower("CPU per request", 0.10, |group| {
    // Without proxies, of everything: how the machine does.
    group.proxy_cpu_us().or_else(|| group.cpu_us(|_| true))
});
const MEMORY: Figure = lower("MiB per proxy", 0.10, |group| Spread::of(group.proxy_mib()));
const RATE: Figure = higher("req/s", |group| group.rate());

const OPEN: [Figure; 4] = [
    lower("p50", 0.15, |group| group.latency_ms(|latency| latency.p50_us)),
    lower("p99", 0.30, |group| group.latency_ms(|latency| latency.p99_us)),
    CPU,
    MEMORY,
];
const CLOSED: [Figure; 2] = [RATE, CPU];
const FRESH: [Figure; 2] = [RATE, CPU];
const BULK: [Figure; 2] = [
    higher("Gbit/s", |group| group.gbit_per_s()),
    lower("CPU per GB", 0.10, |group| {
        group.proxy_cpu_per_gb().or_else(|| group.cpu_per_gb(|_| true))
    }),
];
const IDLE: [Figure; 1] = [MEMORY];

fn figures(cell: Cell) -> &'static [Figure] {
    match cell {
        Cell::Open { .. } | Cell::Burst { .. } => &OPEN,
        Cell::Closed { .. } => &CLOSED,
        Cell::Fresh { .. } => &FRESH,
        Cell::Bulk { .. } => &BULK,
        Cell::Idle { .. } => &IDLE,
    }
}

/// What comparing came to.
pub(super) struct Comparison {
    /// Every figure that moved beyond its tolerance, for better or worse.
    pub(super) moved: Grid,
    /// How many of ours are worse.
    pub(super) worse: usize,
    /// How many figures were in both runs.
    pub(super) compared: usize,
}

/// Compares what both runs measured.
pub(super) fn compare(old: &Record, new: &Record) -> Comparison {
    let moved = Grid::new(["", "measurement", "figure", "old", "new", "change", ""]);
    let mut comparison = Comparison { moved, worse: 0, compared: 0 };
    for mode in new.modes() {
        for cell in Cell::all() {
            if let (Some(before), Some(after)) = (group(old, cell, mode), group(new, cell, mode)) {
                comparison.groups(cell, &before, &after, |figure| drift(old, new, cell, figure));
            }
        }
    }
    comparison
}

impl Comparison {
    fn groups(
        &mut self,
        cell: Cell,
        old: &Group<'_>,
        new: &Group<'_>,
        drift: impl Fn(&Figure) -> f64,
    ) {
        let mode = new.mode;
        if new.errors() > 0 && old.errors() == 0 {
            let errors = new.errors().to_string();
            self.line(mode, cell, ["errors", "0", &errors, ""], true);
        }
        match (old.is_saturated(), new.is_saturated()) {
            (false, false) => {}
            (false, true) => self.line(mode, cell, ["rate", "held", "not held", ""], true),
            (true, false) => self.line(mode, cell, ["rate", "not held", "held", ""], false),
            (true, true) => {}
        }
        // What a saturated run shows depends on how long it was.
        if old.is_saturated() || new.is_saturated() {
            return;
        }
        for figure in figures(cell) {
            let (Some(before), Some(after)) = ((figure.of)(old), (figure.of)(new)) else {
                continue;
            };
            self.compared += 1;
            let tolerance = figure.tolerance + drift(figure).max(0.0);
            let loss = loss(figure.better, before, after);
            if loss.abs() > tolerance && apart(before, after) {
                let change = (after.median / before.median - 1.0) * 100.0;
                let [was, is] = [before, after].map(|spread| format!("{:.2}", spread.median));
                let cells = [figure.name, &was, &is, &format!("{change:+.0} %")];
                self.line(mode, cell, cells, loss > 0.0);
            }
        }
    }

    fn line(&mut self, mode: Mode, cell: Cell, cells: [&str; 4], is_worse: bool) {
        let verdict = match (mode.is_ours(), is_worse) {
            (true, true) => "WORSE",
            (true, false) => "better",
            (false, _) => "(not ours)",
        };
        self.worse += usize::from(mode.is_ours() && is_worse);
        let [figure, was, is, change] = cells.map(ToOwned::to_owned);
        let line = vec![mode.name(), cell.title(), figure, was, is, change, verdict.to_owned()];
        self.moved.line(line);
    }
}

/// By what part of the old value the new one is worse; negative if it is better.
fn loss(better: Better, old: Spread, new: Spread) -> f64 {
    let change = if old.median > 0.0 { new.median / old.median - 1.0 } else { 0.0 };
    if better == Better::Lower { change } else { -change }
}

/// Whether no round of one run reaches into the other.
fn apart(old: Spread, new: Spread) -> bool {
    new.low > old.high || new.high < old.low
}

/// What the machine lost by itself.
fn drift(old: &Record, new: &Record, cell: Cell, figure: &Figure) -> f64 {
    let of = |record| group(record, cell, Mode::Direct).and_then(|group| (figure.of)(&group));
    match (of(old), of(new)) {
        (Some(old), Some(new)) => loss(figure.better, old, new),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::sample;
    use super::*;

    const MAX: Cell = Cell::Closed { connections: 64 };

    /// A run with the given answers per second through Culvert and without it, a round each.
    fn run(ours: &[u64], direct: &[u64]) -> Record {
        let mut record = sample::record();
        for (mode, rates) in [(Mode::CulvertL4, ours), (Mode::Direct, direct)] {
            record.samples.extend(rates.iter().map(|rate| sample::closed(mode, MAX, *rate)));
        }
        record
    }

    #[test]
    fn less_in_every_round_is_worse() {
        let comparison = compare(&run(&[100, 102], &[200]), &run(&[80, 82], &[200]));
        assert_eq!(comparison.worse, 1, "{}", comparison.moved.text());
        let comparison = compare(&run(&[80, 82], &[200]), &run(&[100, 102], &[200]));
        assert_eq!(comparison.worse, 0, "{}", comparison.moved.text());
        assert!(comparison.moved.text().contains("better"));
    }

    #[test]
    fn rounds_that_overlap_are_not_worse() {
        let comparison = compare(&run(&[100, 75, 110], &[200]), &run(&[80, 70, 82], &[200]));
        assert_eq!(comparison.worse, 0, "{}", comparison.moved.text());
    }

    #[test]
    fn what_the_machine_lost_is_not_ours() {
        let comparison = compare(&run(&[100], &[200]), &run(&[80], &[160]));
        assert_eq!(comparison.worse, 0, "{}", comparison.moved.text());
    }

    #[test]
    fn new_errors_are_worse() {
        let mut new = run(&[100], &[200]);
        new.samples[0].errors.insert("read: ConnectionReset".to_owned(), 1);
        assert_eq!(compare(&run(&[100], &[200]), &new).worse, 1);
    }

    #[test]
    fn a_run_is_no_worse_than_itself() {
        let comparison = compare(&run(&[100], &[200]), &run(&[100], &[200]));
        assert_eq!(comparison.worse, 0);
        assert!(comparison.compared > 0);
    }
}
