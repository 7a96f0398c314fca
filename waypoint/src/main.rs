//! The `waypoint` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    waypoint::app::main()
}
