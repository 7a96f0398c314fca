//! `cargo bench --bench latency`: what a mesh costs, Culvert beside sidecars, on this machine.
//! Everything is in the library; see `benches::latency` and docs/performance.md.

use std::process::ExitCode;

/// The proxies under test are this program in another role: they get the allocator of the shipped
/// program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    benches::latency::main()
}
