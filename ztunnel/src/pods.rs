//! The pods of this node: enrolled, served, withdrawn.
