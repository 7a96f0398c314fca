//! Laws that hold for whatever crosses a trust boundary.
//!
//! Each module has one `check`: it returns, or panics when a law is broken by its input. The fuzz
//! targets (`tests/fuzz`) call the checks, and so does `cargo test` with the targets' seeds.

pub mod certificate_chain;
pub mod config;
pub mod csr;
pub mod engine_bytes;
pub mod engine_frames;
pub mod header_blocks;
pub mod headers;
pub mod http_exchange;
pub mod identity;
pub mod mesh_directory;
pub mod name_constraints;
pub mod tunnel_target;

mod der;
mod pieces;
mod routes;
mod wire;

/// Panics when its input breaks a law.
pub type Check = fn(&[u8]);

/// The checks, each by the name of its target and of its folder in `tests/fuzz/corpus/`.
pub const CHECKS: &[(&str, Check)] = &[
    ("certificate_chain", certificate_chain::check),
    ("config", config::check),
    ("csr", csr::check),
    ("engine_bytes", engine_bytes::check),
    ("engine_frames", engine_frames::check),
    ("header_blocks", header_blocks::check),
    ("headers", headers::check),
    ("http_exchange", http_exchange::check),
    ("identity", identity::check),
    ("mesh_directory", mesh_directory::check),
    ("name_constraints", name_constraints::check),
    ("tunnel_target", tunnel_target::check),
];

/// Something that no seed does and that is no bug. With the feature `planted` it counts as one, to
/// show that the target finds what is there to be found.
fn planted(happened: bool) {
    assert!(!(cfg!(feature = "planted") && happened), "planted bug");
}
