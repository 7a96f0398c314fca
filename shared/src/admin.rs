//! The admin, statistics and readiness servers.
