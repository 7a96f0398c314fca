//! What is kept of a run, and what is told about it.

use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use super::args::Args;
use super::load::Load;
use crate::grid::Grid;

/// All of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    secs: f64,
    pub(super) samples: Vec<Sample>,
}

/// What the victim saw once.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sample {
    pub(super) load: Load,
    /// The neighbour's load went through the same ztunnel.
    pub(super) in_mesh: bool,
    pub(super) round: u32,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) max_us: u64,
    /// Requests of the victim without an answer.
    pub(super) failed: u64,
    /// What the neighbour did.
    pub(super) neighbour: String,
}

impl Sample {
    /// For the progress.
    pub(super) fn line(&self) -> String {
        let place = if self.in_mesh { "in the mesh" } else { "outside" };
        format!(
            "{:<44} {place:<12} p50 {} p99 {} ms  {}",
            self.load.title(),
            millis(self.p50_us),
            millis(self.p99_us),
            self.neighbour
        )
    }
}

impl Record {
    pub(super) fn new(args: &Args) -> Self {
        Self { secs: args.secs, samples: Vec::new() }
    }

    /// The table: medians over the rounds.
    pub(super) fn tell(&self, markdown: bool) -> String {
        let mut grid = Grid::new([
            "the neighbour does",
            "p50 / p99 ms, it is outside",
            "p50 / p99 ms, it is in the mesh",
            "p99, ratio",
            "lost",
            "it did, outside",
            "it did, in the mesh",
        ]);
        for load in Load::value_variants() {
            let of = |in_mesh: bool| {
                let same =
                    move |sample: &&Sample| sample.load == *load && sample.in_mesh == in_mesh;
                self.samples.iter().filter(same)
            };
            let figure = |in_mesh, figure: fn(&Sample) -> u64| median(of(in_mesh).map(figure));
            let both = |in_mesh| {
                let (p50, p99) = (figure(in_mesh, |it| it.p50_us), figure(in_mesh, |it| it.p99_us));
                format!("{} / {}", millis(p50), millis(p99))
            };
            let did = |in_mesh| of(in_mesh).next_back().map_or("", |it| &it.neighbour).to_owned();
            let [outside, inside] = [false, true].map(|it| figure(it, |it| it.p99_us));
            let lost: u64 = of(false).chain(of(true)).map(|sample| sample.failed).sum();
            grid.line(vec![
                load.title(),
                both(false),
                both(true),
                format!("{:.2}", inside as f64 / outside.max(1) as f64),
                lost.to_string(),
                did(false),
                did(true),
            ]);
        }
        if markdown { grid.markdown() } else { grid.text() }
    }
}

fn median(figures: impl Iterator<Item = u64>) -> u64 {
    let mut figures: Vec<u64> = figures.collect();
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn millis(micros: u64) -> String {
    format!("{:.2}", micros as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_compares_medians_of_both_places() {
        let sample = |in_mesh, round, p99_us| Sample {
            load: Load::Bulk,
            in_mesh,
            round,
            p50_us: 100,
            p99_us,
            max_us: p99_us,
            failed: 1,
            neighbour: format!("{round} Gbit/s"),
        };
        let samples = [1_000, 9_000, 2_000].into_iter().zip(1..);
        let outside = samples.clone().map(|(p99, round)| sample(false, round, p99));
        let inside = samples.map(|(p99, round)| sample(true, round, p99 * 2));
        let record = Record { secs: 1.0, samples: outside.chain(inside).collect() };
        let table = record.tell(true);
        let line = table.lines().find(|line| line.contains("4 streams")).unwrap();
        assert!(line.contains("| 0.10 / 2.00 | 0.10 / 4.00 | 2.00 | 6 | 3 Gbit/s |"), "{line}");
    }
}
