//! Flags and variables of the node proxy.
