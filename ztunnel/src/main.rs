//! The `ztunnel` program.

use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: shared::allocator::Allocator = shared::allocator::Allocator;

fn main() -> ExitCode {
    #[cfg(feature = "mimalloc")]
    shared::allocator::release_later();
    ztunnel::app::main()
}
