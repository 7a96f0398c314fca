//! Small scenes that more than one measurement plays: time, instructions, allocations.

pub mod path;
