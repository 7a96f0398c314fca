//! What is told about a run.

use super::record::{Record, Row};
use crate::grid::Grid;

/// One line per scenario and data plane.
pub(super) fn grid(record: &Record) -> Grid {
    let mut grid = Grid::new([
        "scenario",
        "data plane",
        "requests",
        "failed",
        "failed though executed",
        "executed twice",
        "executed per request",
    ]);
    for row in &record.rows {
        let count =
            |count: Option<u64>| count.map_or_else(|| "–".to_owned(), |one| one.to_string());
        grid.line(vec![
            row.scenario.clone(),
            row.mode.clone(),
            row.requests.to_string(),
            format!("{} ({})", row.failed, percent(row)),
            count(row.failed_but_executed),
            count(row.twice),
            row.attempts.map_or_else(|| "–".to_owned(), |all| ratio(all, row.requests)),
        ]);
    }
    grid
}

fn percent(row: &Row) -> String {
    let percent = row.failed as f64 * 100.0 / row.requests.max(1) as f64;
    if row.failed > 0 && percent < 0.01 { "< 0.01 %".to_owned() } else { format!("{percent:.2} %") }
}

fn ratio(all: u64, requests: u64) -> String {
    format!("{:.2}", all as f64 / requests.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_its_line_and_what_was_not_counted_is_none() {
        let row = Row {
            scenario: "cut".into(),
            mode: "culvert".into(),
            requests: 200,
            failed: 3,
            twice: Some(0),
            attempts: Some(250),
            ..Row::default()
        };
        let record = Record { rows: vec![row], ..Record::default() };
        let text = grid(&record).text();
        assert!(
            text.contains("3 (1.50 %)") && text.contains("1.25") && text.contains('–'),
            "{text}"
        );
    }
}
