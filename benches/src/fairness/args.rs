//! The command line.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

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
    #[arg(long, value_name = "N", default_value_t = 4.0, value_parser = seconds)]
    pub(super) secs: f64,
    /// How often each is made; figures are medians
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) rounds: u32,
    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print the table as Markdown
    #[arg(long)]
    pub(super) markdown: bool,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// Whether the file can be written.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let Some(file) = self.json() else { return Ok(()) };
        let opened = fs::File::options().append(true).create(true).open(&file);
        opened.map(drop).with_context(|| format!("{} cannot be written", file.display()))
    }

    /// Where to write, seen from where it was typed.
    pub(super) fn json(&self) -> Option<PathBuf> {
        self.json.as_deref().map(crate::latency::as_typed)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=600.0).contains(&seconds) { Ok(seconds) } else { Err("from 0.1 to 600".to_owned()) }
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
