//! What is kept of a run, and what is told about it.

use serde::{Deserialize, Serialize};

use crate::grid::Grid;
use crate::memory::Memory;

/// All of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Whether the shipped programs were measured.
    shipped: bool,
    pub(super) figures: Vec<Figure>,
}

/// What one program held at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Figure {
    pub(super) program: String,
    /// Workloads in the mesh.
    pub(super) workloads: u32,
    /// Routes of HTTP in the mesh.
    pub(super) routes: u32,
    pub(super) memory: Memory,
    /// The most that was resident on the way there.
    pub(super) peak_kib: u64,
}

impl Figure {
    /// For the progress.
    pub(super) fn line(&self) -> String {
        let Self { program, workloads, routes, memory, .. } = self;
        format!(
            "{program:<9} {workloads:>7} workloads {routes:>6} routes  {:>8} KiB resident",
            memory.rss_kib
        )
    }

    /// What each further workload or route took since `earlier`, in bytes.
    fn each_since(&self, earlier: &Self) -> String {
        let more = match self.workloads - earlier.workloads {
            0 => self.routes - earlier.routes,
            workloads => workloads,
        };
        let grown = self.memory.rss_kib as f64 - earlier.memory.rss_kib as f64;
        format!("{:.0}", grown * 1024.0 / f64::from(more.max(1)))
    }
}

impl Record {
    pub(super) fn new() -> Self {
        let shipped = std::env::var_os(harness::process::PROGRAMS).is_some();
        Self { shipped, figures: Vec::new() }
    }

    /// The table.
    pub(super) fn tell(&self, markdown: bool) -> String {
        let mut grid = Grid::new([
            "program",
            "workloads",
            "routes",
            "resident MiB",
            "of that anonymous",
            "peak",
            "bytes for each one more",
        ]);
        for (index, figure) in self.figures.iter().enumerate() {
            let earlier = self.figures[..index].iter().rev();
            let earlier = earlier.clone().find(|earlier| earlier.program == figure.program);
            grid.line(vec![
                figure.program.clone(),
                figure.workloads.to_string(),
                figure.routes.to_string(),
                mib(figure.memory.rss_kib),
                mib(figure.memory.anonymous_kib),
                mib(figure.peak_kib),
                earlier.map_or_else(|| "–".to_owned(), |earlier| figure.each_since(earlier)),
            ]);
        }
        let table = if markdown { grid.markdown() } else { grid.text() };
        let note = "\nThese are this benchmark's own program in the roles of the proxies. For the shipped ones:\n\
                    cargo build --release && CULVERT_PROGRAMS=$PWD/target/release cargo bench --bench footprint\n";
        format!("{table}{}", if self.shipped { "" } else { note })
    }
}

fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_for_each_one_more_of_what_was_added() {
        let figure = |workloads, routes, rss_kib| Figure {
            program: "waypoint".to_owned(),
            workloads,
            routes,
            memory: Memory { rss_kib, ..Memory::default() },
            peak_kib: rss_kib,
        };
        let [start, routed, large] =
            [figure(100, 0, 8_000), figure(100, 1_000, 10_000), figure(1_100, 1_000, 10_500)];
        assert_eq!(routed.each_since(&start), "2048");
        assert_eq!(large.each_since(&routed), "512");
    }
}
