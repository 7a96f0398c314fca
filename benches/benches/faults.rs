//! `cargo bench --bench faults`: what requests go through when something fails, behind Culvert and
//! behind Envoy, on this machine. Everything is in the library; see docs/resilience.md.

use std::process::ExitCode;

/// The proxies under test are this program in another role: they get the allocator of the shipped
/// program.
#[global_allocator]
static ALLOCATOR: shared::allocator::Allocator = shared::allocator::Allocator;

fn main() -> ExitCode {
    shared::allocator::release_later();
    benches::faults::main()
}
