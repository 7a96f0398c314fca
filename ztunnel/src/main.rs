//! The `ztunnel` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ztunnel::app::main()
}
