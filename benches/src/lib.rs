//! The benchmarks of Culvert that are more than one file.

pub mod fairness;
pub mod faults;
mod grid;
pub mod latency;
pub mod micro;
mod program;
mod terminal;
