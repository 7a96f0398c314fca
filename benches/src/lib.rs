//! The benchmarks of Culvert that are more than one file.

pub mod fairness;
pub mod faults;
pub mod footprint;
mod grid;
pub mod instructions;
pub mod latency;
mod memory;
pub mod micro;
mod program;
mod terminal;
