//! What both Culvert proxies speak.
//!
//! | module | holds |
//! |---|---|
//! | [`identity`] | SPIFFE ids, certificates and where they come from |
//! | [`tls`] | mutual TLS 1.3 and the proof of a peer's identity |
//! | [`hbone`] | the tunnel: CONNECT streams over HTTP/2 over mutual TLS |
//! | [`headers`] | what a tunnel request says about its caller |
//! | [`mesh`] | the immutable picture of workloads, services and policies |
//! | [`feed`] | where that picture comes from |
//! | [`authz`] | who may connect: pure decisions over the picture |
//! | [`balance`] | which endpoint: pure choices over load |
//! | [`check`] | what of a mesh directory is in force |
//! | [`chain`], [`size`] | errors in words; budgets for futures |
//! | [`config`], [`process`] | what the operator wants; from the command line to the exit code |
//! | [`telemetry`], [`admin`], [`ready`], [`drain`], [`workers`] | running the process |
//! | `allocator` | memory that goes back to the system after bursts |

pub mod admin;
#[cfg(feature = "mimalloc")]
pub mod allocator;
pub mod authz;
pub mod balance;
pub mod chain;
pub mod check;
pub mod config;
pub mod drain;
pub mod feed;
pub mod hbone;
pub mod headers;
pub mod identity;
pub mod mesh;
pub mod process;
pub mod ready;
pub mod size;
pub mod telemetry;
pub mod tls;
pub mod workers;
