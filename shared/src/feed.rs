//! Where the picture of the mesh comes from.
mod local;
pub use local::LocalPod;
