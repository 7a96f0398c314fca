//! `cargo bench --bench latency`: what a mesh costs, Culvert beside sidecars, on this machine.
//! Everything is in the library; see `benches::latency` and docs/performance.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    benches::latency::main()
}
