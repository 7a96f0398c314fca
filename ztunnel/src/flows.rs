//! Whole connections through the real data path, over loopback sockets and without capture.

mod policy;
mod traffic;
mod world;
