//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::terminal::seconds;

/// Shows how much memory the proxies hold.
///
/// A ztunnel with ten pods and a waypoint run over a mesh directory of 1,000 workloads, then over
/// 5,000 routes, then over 100,000 workloads. After each change the processes are left alone for a
/// while, then the kernel is asked (`/proc/PID/smaps_rollup`). Needs no root and leaves nothing
/// behind. What is measured are the shipped programs: `cargo build --release` makes them; without,
/// this program plays their roles, which costs some MiB more.
#[derive(Clone, Debug, Parser)]
#[command(bin_name = "cargo bench --bench footprint --")]
pub(super) struct Args {
    /// Seconds without work before a figure is read
    #[arg(long, value_name = "N", default_value_t = 30.0, value_parser = |text: &str| seconds(text, 0.5))]
    pub(super) settle: f64,
    /// Workloads at the start
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    pub(super) few: u32,
    /// Workloads at the end
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(200..=200_000))]
    pub(super) many: u32,
    /// Routes
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(100..=50_000))]
    pub(super) routes: u32,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Print the table as Markdown
    #[arg(long)]
    pub(super) markdown: bool,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
