//! When the process may take traffic.
