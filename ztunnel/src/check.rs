//! `ztunnel check`: what of a mesh directory is in force.
