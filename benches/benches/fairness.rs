//! `cargo bench --bench fairness`: what a quiet pod notices of a loud one on its node.
//! Everything is in the library; see `benches::fairness` and docs/performance.md.

use std::process::ExitCode;

/// As the shipped programs have it.
#[global_allocator]
static ALLOCATOR: shared::allocator::Allocator = shared::allocator::Allocator;

fn main() -> ExitCode {
    shared::allocator::release_later();
    benches::fairness::main()
}
