//! Mutual TLS 1.3 and the proof of a peer's identity.
