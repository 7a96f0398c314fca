//! The suite over real namespaces, real sockets and real programs.
//! Runs inside namespaces of its own (`harness::enter`); as root and as an ordinary user.

mod netns {
    pub(crate) mod bare;
    pub(crate) mod captured;
    pub(crate) mod certificates;
    pub(crate) mod drain;
    pub(crate) mod handover;
    pub(crate) mod inward;
    pub(crate) mod many;
    pub(crate) mod mesh;
    pub(crate) mod peers;
    pub(crate) mod pods;
    pub(crate) mod policy;
    pub(crate) mod programs;
    pub(crate) mod redirect;
    pub(crate) mod routes;
    pub(crate) mod shares;
    pub(crate) mod suite;
    pub(crate) mod traffic;
    pub(crate) mod waypoint;
}

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::enter::main(netns::suite::run)
}
