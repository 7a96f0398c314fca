//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::terminal::seconds;

/// Shows what a quiet pod notices of a loud one on its node.
///
/// A pod sends 200 requests per second through the mesh. Its neighbour on the same node opens 1,200
/// connections per second, moves bytes as fast as it can, or stops reading what it asked for: once
/// in the mesh, through the same ztunnel, and once outside of it. Needs no root and leaves nothing
/// behind; about a minute and a half on two CPUs. Let the machine be quiet meanwhile.
#[derive(Clone, Debug, Parser)]
#[command(bin_name = "cargo bench --bench fairness --")]
pub(super) struct Args {
    /// Seconds of each measurement
    #[arg(long, value_name = "N", default_value_t = 4.0, value_parser = |text: &str| seconds(text, 0.1))]
    pub(super) secs: f64,
    /// How often each is made; figures are medians
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) rounds: u32,
    /// Write everything that was measured to this file
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
