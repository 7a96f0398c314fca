//! Whole connections through the data path alone, over loopback sockets: no capture, and a mesh that
//! the test writes by itself, so also one that no directory of objects can describe.

mod policy;
mod rare;
mod traffic;
mod world;

use super::suite::Case;

/// All of them.
pub(crate) const CASES: &[&[Case]] = &[policy::CASES, rare::CASES, traffic::CASES];
