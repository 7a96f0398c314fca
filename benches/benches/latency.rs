//! `cargo bench --bench latency`: what a mesh costs, Culvert beside sidecars, on this machine.
//! Everything is in the library; see `benches::latency` and docs/performance.md.

use std::process::ExitCode;

/// The proxies under test are this program in another role: they get the allocator of the shipped
/// program.
#[global_allocator]
static ALLOCATOR: shared::allocator::Allocator = shared::allocator::Allocator;

fn main() -> ExitCode {
    shared::allocator::release_later();
    benches::latency::main()
}
