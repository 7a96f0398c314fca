//! Life of a connection that an application opens.
