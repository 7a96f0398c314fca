//! `cargo bench --bench footprint`: the memory that the proxies hold.
//! Everything is in the library; see `benches::footprint` and docs/performance.md.

use std::process::ExitCode;

/// As the shipped programs have it.
#[global_allocator]
static ALLOCATOR: shared::allocator::Allocator = shared::allocator::Allocator;

fn main() -> ExitCode {
    shared::allocator::release_later();
    benches::footprint::main()
}
