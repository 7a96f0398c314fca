//! Where the picture of the mesh comes from.
