//! The embedded certificate authority: `ztunnel ca`.
