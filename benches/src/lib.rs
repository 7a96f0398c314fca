//! The benchmarks of Culvert that are more than one file.

pub mod latency;
pub mod micro;
