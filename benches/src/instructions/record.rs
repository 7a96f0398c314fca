//! What is kept of a run, what is told about it, and how two compare.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::grid::Grid;

/// Percent of the old count by which a new one may differ.
const TOLERANCE: u64 = 5;

/// Instructions of one operation, by its name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) instructions: BTreeMap<String, u64>,
    /// What could not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) failed: Vec<String>,
}

/// What comparing came to.
pub(super) struct Comparison {
    moved: Grid,
    pub(super) worse: usize,
    pub(super) compared: usize,
}

impl Record {
    /// The table.
    pub(super) fn tell(&self, markdown: bool) -> String {
        let mut grid = Grid::new(["operation", "instructions"]);
        for (name, each) in &self.instructions {
            grid.line(vec![name.clone(), each.to_string()]);
        }
        for name in &self.failed {
            grid.line(vec![name.clone(), "–".to_owned()]);
        }
        if markdown { grid.markdown() } else { grid.text() }
    }

    /// What `new` does otherwise. An operation that can no longer run is worse.
    pub(super) fn compare(&self, new: &Self) -> Comparison {
        let moved = Grid::new(["operation", "old", "new", "change", ""]);
        let mut comparison = Comparison { moved, worse: 0, compared: 0 };
        for (name, old) in &self.instructions {
            match new.instructions.get(name) {
                Some(new) => comparison.add(name, *old, *new),
                None if new.failed.contains(name) => {
                    comparison.compared += 1;
                    comparison.line(name, [&old.to_string(), "–", ""], true);
                }
                None => {}
            }
        }
        comparison
    }
}

impl Comparison {
    fn add(&mut self, name: &str, old: u64, new: u64) {
        self.compared += 1;
        // In whole numbers, so that exactly the tolerance is not more than it.
        if old.abs_diff(new).saturating_mul(100) > old.saturating_mul(TOLERANCE) {
            let change = new as f64 / old.max(1) as f64 - 1.0;
            let change_text = format!("{:+.1} %", change * 100.0);
            let cells = [&*old.to_string(), &*new.to_string(), &*change_text];
            self.line(name, cells, new > old);
        }
    }

    fn line(&mut self, name: &str, cells: [&str; 3], is_worse: bool) {
        self.worse += usize::from(is_worse);
        let verdict = if is_worse { "WORSE" } else { "better" };
        let cells = std::iter::once(name).chain(cells).chain([verdict]);
        self.moved.line(cells.map(ToOwned::to_owned).collect());
    }

    /// What moved.
    pub(super) fn tell(&self) -> String {
        let Self { moved, worse, compared } = self;
        let moved = if moved.is_empty() { String::new() } else { moved.text() };
        format!("{moved}{compared} operations compared, {worse} worse\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(each: u64) -> Record {
        let instructions = [("resolve: a pod".to_owned(), each)].into();
        Record { instructions, failed: Vec::new() }
    }

    #[test]
    fn more_than_a_twentieth_is_worse() {
        assert_eq!(run(1_000).compare(&run(1_051)).worse, 1);
        assert_eq!(run(1_000).compare(&run(1_050)).worse, 0);
        let better = run(1_000).compare(&run(900));
        assert_eq!((better.worse, better.compared), (0, 1));
        assert!(better.tell().contains("better"));
    }

    #[test]
    fn what_cannot_run_any_more_is_worse_and_what_was_not_asked_for_is_not() {
        let failed = Record { failed: vec!["resolve: a pod".to_owned()], ..Record::default() };
        assert_eq!(run(1_000).compare(&failed).worse, 1);
        assert_eq!(run(1_000).compare(&Record::default()).worse, 0);
    }
}
