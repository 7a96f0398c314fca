//! Life of a connection that an application opens.

pub mod resolve;
