//! Small scenes that more than one measurement plays: time, instructions, allocations.

pub mod decision;
pub mod mesh;
pub mod path;
pub mod router;
