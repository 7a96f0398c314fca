//! The suite over the whole node proxy inside the test's own process: `app::build` → `Bound`, with
//! real pods, rules, sockets and TLS, and peers that misbehave on purpose.
//! Runs inside namespaces of its own (`harness::enter`); as root and as an ordinary user.

mod inproc {
    pub(crate) mod authority;
    pub(crate) mod beside;
    pub(crate) mod causes;
    pub(crate) mod flows;
    pub(crate) mod hostile;
    pub(crate) mod log;
    pub(crate) mod mesh;
    pub(crate) mod peer;
    pub(crate) mod scene;
    pub(crate) mod state;
    pub(crate) mod suite;
    pub(crate) mod wire;
    pub(crate) mod world;
}

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::enter::main(inproc::suite::run)
}
