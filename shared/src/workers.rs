//! Threads that own their connections.
