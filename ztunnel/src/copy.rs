//! Bytes between an application socket and a tunnel stream, or between two sockets.
