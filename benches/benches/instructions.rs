//! `cargo bench --bench instructions`: how many instructions the parts take, counted by valgrind.
//! Everything is in the library; see `benches::instructions` and docs/performance.md.

use std::process::ExitCode;

/// That of the shipped programs.
#[global_allocator]
static ALLOCATOR: shared::allocator::Allocator = shared::allocator::Allocator;

fn main() -> ExitCode {
    benches::instructions::main()
}
