//! What the process says about itself: metrics, the access log, and its own log.
//!
//! Invariants: nothing here knows the mesh (labels arrive as text); nothing on the byte path takes a
//! lock or formats text; no line is lost while the writer lives: a full queue makes producers wait.

pub mod access;
mod line;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod requests;
mod sink;
pub mod traffic;

pub use line::Format;
pub use sink::Sink;
