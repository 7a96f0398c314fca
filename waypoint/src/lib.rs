//! The HTTP proxy: ends HBONE, decides per request, and reaches the chosen pod over HBONE again.
//!
//! | module | holds |
//! |---|---|
//! | [`tunnel`] | connections of clients: mutual TLS, CONNECT streams, which protocol is inside |
//! | [`request`] | the life of a request |
//! | [`resilience`] | whether and when a request is sent again |
//! | [`permits`] | whether policies allow it, at the start and later |
//! | [`upstream`] | endpoints and the connections to them |
//! | [`cluster`] | what a `DestinationRule` says about a port of a service: limits, who is left out |
//! | [`limits`] | how many requests of a route, to a service, of a caller may pass |
//! | [`respond`] | answers of our own |
//! | [`tcp`] | what is not HTTP |
//! | [`app`] | the process: parse, build, run, drain |

pub mod app;
pub mod cluster;
pub mod config;
pub mod filters;
pub mod limits;
pub mod metrics;
pub mod node;
pub mod outcome;
pub mod permits;
pub mod request;
pub mod resilience;
pub mod respond;
pub mod router;
pub mod tcp;
pub mod tunnel;
pub mod upstream;
