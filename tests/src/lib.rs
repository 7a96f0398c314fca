//! The test harness: a mesh of network namespaces on one machine, and the peers that talk in it.
//! `enter` puts a program into namespaces of its own, `cluster` builds nodes and pods there,
//! `role` holds the processes that run inside (proxies, servers, clients, the wire watch).
//! Not here: assertions about the product; those live in the suites and in the demo.

pub mod asking;
pub mod backend;
pub mod cluster;
pub mod enter;
pub mod eventually;
pub mod mesh_dir;
pub mod netlink;
pub mod netns;
pub mod peers;
pub mod pod;
pub mod process;
pub mod proxies;
pub mod role;
pub mod sums;
mod sys;
pub mod waypoint;
pub mod wire;
