//! Where the picture of the mesh comes from.
//!
//! ```text
//! bytes → yaml (tree with lines) → object (typed, every field accounted for) → compile → changes
//! ```
//!
//! Invariants: nothing is ignored silently: an object or field without a [`Verdict`] against it is
//! in force. The unit is the object: what is refused leaves its last good version in force.
//! Not here: the mesh itself, and where its objects are needed (`mesh`, `authz`).

mod compile;
pub mod dir;
mod fields;
mod intern;
mod local;
mod object;
mod verdict;
mod yaml;

pub use compile::{Compiled, Options};
pub use dir::{SourceFile, objects};
pub use local::LocalPod;
pub use verdict::{Cause, Verdict};
