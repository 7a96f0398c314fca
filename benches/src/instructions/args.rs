//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Counts the instructions of the parts: decisions, changes of the mesh, routes, TLS, byte path.
///
/// This program runs again under `valgrind --tool=callgrind`, once for each operation. The figures
/// are instructions in user space for one operation; they depend on the compiler, hardly on the
/// machine, and not on its load.
#[derive(Clone, Debug, Parser)]
#[command(bin_name = "cargo bench --bench instructions --")]
pub(super) struct Args {
    /// Count only operations whose name contains this
    #[arg(default_value = "", hide_default_value = true, value_name = "NAME")]
    pub(super) only: String,
    /// Write the counts to this file
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Count nothing: compare two files; exit 1 if an operation got more than 5 % worse
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with_all = ["json", "only"])]
    pub(super) check: Vec<PathBuf>,
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
